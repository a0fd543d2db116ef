"""The models that can be downloaded: what they are good for, where they are, what they were trained for.

Sizes are about right; before a download begins, the server is asked. Licences are those on the models' pages.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ...modelscope.checkpoints.find_parts import WEIGHTS, model_config
from ...modelscope.config import CONFIGURATION
from ...modelscope.errors import ModelError, RequestError
from ...modelscope.request import VideoRequest
from ..request import GenerationRequest
from .folders import base_folder, further_folder

NON_COMMERCIAL = "CC-BY-NC 4.0: not for commercial use"
VQGAN_SHA256 = "930e9865584b"
"""How the hash of the half-precision autoencoder begins, which several models share."""


RECOMMENDABLE = ("width", "height", "frames", "fps", "steps", "sampler", "cfg_scale", "cfg_rescale", "eta")
"""Fields of a request that a configuration, which comes from strangers, may fill in."""


class RemoteFile(NamedTuple):
    """A file on the hub. name: what it is called here; size: about so many bytes; sha256: how its hash begins."""

    repository: str
    path: str
    name: str
    size: float
    sha256: str = ""


class Advice(NamedTuple):
    """What a model was trained for. recommended: good values of the request's fields."""

    recommended: Mapping[str, Any]
    most_frames: int
    largest: tuple[int, int]


class KnownModel(NamedTuple):
    """One model. folder: its name among the further models; empty for the base model's; None for a LoRA."""

    key: str
    label: str
    about: str
    licence: str
    folder: str | None
    files: tuple[RemoteFile, ...]
    advice: Advice | None = None

    def goal(self, models: Path, loras: Path) -> Path:
        """The folder in which its files belong."""
        if self.folder is None:
            return loras
        return further_folder(models) / self.folder if self.folder else base_folder(models)

    @property
    def size(self) -> float:
        """About so many bytes in all."""
        return sum(file.size for file in self.files)


def _four(repository: str, unet: float, vae: float, clip: float, sha256: str = "") -> tuple[RemoteFile, ...]:
    """The original's files at the top of a repository, with their sizes in GB."""
    return (
        RemoteFile(repository, "configuration.json", "configuration.json", 1.1e3),
        RemoteFile(repository, "text2video_pytorch_model.pth", "text2video_pytorch_model.pth", unet * 1e9),
        RemoteFile(repository, "VQGAN_autoencoder.pth", "VQGAN_autoencoder.pth", vae * 1e9, sha256),
        RemoteFile(repository, "open_clip_pytorch_model.bin", "open_clip_pytorch_model.bin", clip * 1e9),
    )


def _zeroscope(repository: str, folder: str) -> tuple[RemoteFile, ...]:
    """Two parts of its own; the autoencoder is the one that all have."""
    shared = "cerspense/zeroscope_v2_1111models"
    return (
        RemoteFile(repository, f"{folder}/text2video_pytorch_model.pth", "text2video_pytorch_model.pth", 2.82e9),
        RemoteFile(repository, f"{folder}/open_clip_pytorch_model.bin", "open_clip_pytorch_model.bin", 1.97e9),
        RemoteFile(shared, "VQGAN_autoencoder.pth", "VQGAN_autoencoder.pth", 2.607657443e9, VQGAN_SHA256),
    )


def _advice(width: int, height: int, frames: int, most: int, **values: Any) -> Advice:
    return Advice({"width": width, "height": height, "frames": frames, **values}, most, (width, height))


KNOWN = (
    KnownModel(
        "modelscope", "ModelScope, half precision", "the base model, 256 x 256; the one to begin with",
        NON_COMMERCIAL, "", _four("kabachuha/modelscope-damo-text2video-pruned-weights", 2.82, 2.607657443, 1.97,
                                  VQGAN_SHA256),
        _advice(256, 256, 24, 45, steps=30, cfg_scale=9.0),
    ),
    KnownModel(
        "modelscope-original", "ModelScope, the original's files", "the same in single precision: twice the size",
        NON_COMMERCIAL, "modelscope-original",
        _four("ali-vilab/modelscope-damo-text-to-video-synthesis", 5.65, 5.21, 3.94),
        _advice(256, 256, 24, 45, steps=30, cfg_scale=9.0),
    ),
    KnownModel(
        "zeroscope-576w", "Zeroscope v2 576w", "wide pictures without watermark, 576 x 320",
        NON_COMMERCIAL, "zeroscope_v2_576w", _zeroscope("cerspense/zeroscope_v2_576w", "zs2_576w"),
        _advice(576, 320, 24, 45, steps=30, cfg_scale=9.0),
    ),
    KnownModel(
        "zeroscope-xl", "Zeroscope v2 XL", "1024 x 576, made for enlarging videos of Zeroscope 576w",
        NON_COMMERCIAL, "zeroscope_v2_XL", _zeroscope("cerspense/zeroscope_v2_XL", "zs2_XL"),
        _advice(1024, 576, 24, 45, steps=30, cfg_scale=9.0),
    ),
    KnownModel(
        "potat1", "Potat1", "wide pictures, 1024 x 576",
        NON_COMMERCIAL, "potat1",
        _four("kabachuha/potat1-with-text-encoder-original-format", 2.82, 2.607657443, 1.97),
        _advice(1024, 576, 24, 45, steps=30, cfg_scale=9.0),
    ),
    KnownModel(
        "animov", "Animov 0.1", "in the style of animation, 384 x 384",
        NON_COMMERCIAL, "animov-0.1",
        _four("kabachuha/animov-0.1-modelscope-original-format", 2.82, 2.607657443, 1.97, VQGAN_SHA256),
        _advice(384, 384, 16, 45, steps=30, cfg_scale=9.0),
    ),
    KnownModel(
        "t2v-turbo", "T2V-Turbo for ModelScope (LoRA)", "videos in 4 to 8 steps with the base model",
        NON_COMMERCIAL, None,
        (RemoteFile("jiachenli-ucsb/T2V-Turbo-MS", "unet_lora.pt", "t2v-turbo-ms.pt", 2.34e8),),
    ),
)  # fmt: skip


def described(model: KnownModel, models: Path, loras: Path) -> str:
    """One line of what a person wants to know before a download."""
    there = " (installed)" if is_installed(model, models, loras) else ""
    return f"{model.label}{there}: {model.about}; about {model.size / 1e9:.1f} GB; {model.licence}"


def is_installed(model: KnownModel, models: Path, loras: Path) -> bool:
    """Whether all of its files are there, by name and about by size: what is cut or of another precision is not."""
    goal = model.goal(models, loras)
    return all(_is_there(goal / file.name, file.size) for file in model.files)


def _is_there(path: Path, size: float) -> bool:
    return path.is_file() and (size < 1e6 or 0.8 < path.stat().st_size / size < 1.25)


def known_model(key: str) -> KnownModel | None:
    """By key."""
    return next((model for model in KNOWN if model.key == key), None)


def advice_for(path: Path) -> Advice | None:
    """That for the model in a folder, if its name, or the one above, is a known one's."""
    names = [name.lower().removesuffix("-fp16") for name in (_without_ending(path), path.parent.name)]
    if names == ["t2v", "modelscope"]:
        return KNOWN[0].advice
    # Converted models in folders of folders have both names, with a dash.
    known = (m for name in names for m in KNOWN if any(name == one or name.endswith(f"-{one}") for one in _names(m)))
    return next((model.advice for model in known if model.advice), None)


def _without_ending(path: Path) -> str:
    return path.stem if path.suffix.lower() in WEIGHTS else path.name


def _names(model: KnownModel) -> set[str]:
    """What people call its folder: our name, the repository's, or the folder's there."""
    first = model.files[1 if len(model.files) > 1 else 0]
    repository = first.repository.rpartition("/")[2]
    names = {model.folder or model.key, repository, Path(first.path).parent.name}
    if not model.folder:
        names.add("text-to-video-ms-1.7b")
    return {name.lower() for name in names if name}


def good_values(model: Path) -> Mapping[str, Any]:
    """A model's good values of the request's fields: its configuration's, else the advice's. Raises ModelError."""
    advice, said = advice_for(model), model_config(model).recommended
    values = {name: value for name, value in said.items() if name in RECOMMENDABLE}
    try:
        GenerationRequest(**values)
    except RequestError as error:
        raise ModelError(
            f"{model / CONFIGURATION}: what it recommends cannot be used. {error} Correct that line, or delete it."
        ) from error
    return values or (advice.recommended if advice else {})


def past_training(model: Path, request: VideoRequest) -> str:
    """What of a request is past what a known model was trained for, in a sentence; nothing if all is well."""
    advice = advice_for(model)
    return beyond(advice, request.width, request.height, request.frames) if advice else ""


def beyond(advice: Advice, width: int, height: int, frames: int) -> str:
    """The same, for a size."""
    said = []
    if frames > advice.most_frames:
        said.append(f"more than about {advice.most_frames} frames tend to fall apart")
    if width * height > 2 * advice.largest[0] * advice.largest[1]:
        said.append(f"it was trained at {advice.largest[0]} x {advice.largest[1]}, and repeats itself far above that")
    return f"Past what this model was trained for: {'; '.join(said)}." if said else ""
