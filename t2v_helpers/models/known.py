"""The models that can be downloaded: what they are good for, where they are, and what they were trained for.

Sizes are approximate: before a download begins, the server is asked for them. Licences are those on the models' pages.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ...modelscope.checkpoints.find_parts import WEIGHTS, read_model_config
from ...modelscope.config import CONFIGURATION
from ...modelscope.errors import ModelError, RequestError
from ...modelscope.request import VideoRequest
from ...modelscope.units import GIGABYTE, MEGABYTE, format_bytes
from ..request import GenerationRequest
from .folders import base_folder, more_folder

NON_COMMERCIAL = "CC-BY-NC 4.0: not for commercial use"
VQGAN_SHA256 = "930e9865584b"
"""The first digits of the half-precision autoencoder's hash, which several models share."""
MOST_FRAMES = 45
"""Number of frames beyond which these models' videos tend to fall apart."""
RECOMMENDABLE = ("width", "height", "frames", "fps", "steps", "sampler", "cfg_scale", "cfg_rescale", "eta")
"""Fields of a request that a configuration may fill in; configurations come from untrusted sources."""


class RemoteFile(NamedTuple):
    """A file on the hub.

    name: its name here; size: its approximate size in bytes; sha256: the first digits of its hash.
    """

    repository: str
    path: str
    name: str
    size: float
    sha256: str = ""


class Advice(NamedTuple):
    """Advice on what a model was trained for.

    recommended: good values for the request's fields; most_frames: number of frames beyond which videos tend to fall
    apart; largest: width and height in pixels at which the model was trained.
    """

    recommended: Mapping[str, Any]
    most_frames: int
    largest: tuple[int, int]


class KnownModel(NamedTuple):
    """A model that can be downloaded.

    folder: the name of its folder among the other models; empty for the base model; None for a LoRA.
    aliases: other names that people give to its folder.
    """

    key: str
    label: str
    about: str
    licence: str
    folder: str | None
    files: tuple[RemoteFile, ...]
    advice: Advice | None = None
    aliases: tuple[str, ...] = ()

    def goal(self, models: Path, loras: Path) -> Path:
        """Return the folder in which its files belong."""
        if self.folder is None:
            return loras
        return more_folder(models) / self.folder if self.folder else base_folder(models)

    @property
    def size(self) -> float:
        """Approximate size of all its files in bytes."""
        return sum(file.size for file in self.files)


def _list_original(repository: str, unet: float, vae: float, clip: float, sha256: str = "") -> tuple[RemoteFile, ...]:
    """Return the original's files, which are at the top of a repository. unet, vae, clip: sizes in GB."""
    return (
        RemoteFile(repository, "configuration.json", "configuration.json", 1.1e3),
        RemoteFile(repository, "text2video_pytorch_model.pth", "text2video_pytorch_model.pth", unet * GIGABYTE),
        RemoteFile(repository, "VQGAN_autoencoder.pth", "VQGAN_autoencoder.pth", vae * GIGABYTE, sha256),
        RemoteFile(repository, "open_clip_pytorch_model.bin", "open_clip_pytorch_model.bin", clip * GIGABYTE),
    )


def _list_zeroscope(repository: str, folder: str) -> tuple[RemoteFile, ...]:
    """Return the two parts of a Zeroscope model, and the autoencoder that all models share."""
    shared = "cerspense/zeroscope_v2_1111models"
    return (
        RemoteFile(repository, f"{folder}/text2video_pytorch_model.pth", "text2video_pytorch_model.pth", 2.82e9),
        RemoteFile(repository, f"{folder}/open_clip_pytorch_model.bin", "open_clip_pytorch_model.bin", 1.97e9),
        RemoteFile(shared, "VQGAN_autoencoder.pth", "VQGAN_autoencoder.pth", 2.607657443e9, VQGAN_SHA256),
    )


def _advice(width: int, height: int, frames: int = 24) -> Advice:
    """Return the advice for a model that was trained at this size."""
    values = {"width": width, "height": height, "frames": frames, "steps": 30, "cfg_scale": 9.0}
    return Advice(values, MOST_FRAMES, (width, height))


KNOWN = (
    KnownModel(
        "modelscope", "ModelScope, half precision", "the base model, 256 x 256; start with this one",
        NON_COMMERCIAL, "",
        _list_original("kabachuha/modelscope-damo-text2video-pruned-weights", 2.82, 2.607657443, 1.97, VQGAN_SHA256),
        _advice(256, 256), aliases=("text-to-video-ms-1.7b",),
    ),
    KnownModel(
        "modelscope-original", "ModelScope, original files", "the same in single precision: twice the size",
        NON_COMMERCIAL, "modelscope-original",
        _list_original("ali-vilab/modelscope-damo-text-to-video-synthesis", 5.65, 5.21, 3.94),
        _advice(256, 256),
    ),
    KnownModel(
        "zeroscope-576w", "Zeroscope v2 576w", "widescreen videos without a watermark, 576 x 320",
        NON_COMMERCIAL, "zeroscope_v2_576w", _list_zeroscope("cerspense/zeroscope_v2_576w", "zs2_576w"),
        _advice(576, 320),
    ),
    KnownModel(
        "zeroscope-xl", "Zeroscope v2 XL", "1024 x 576, made for upscaling videos of Zeroscope 576w",
        NON_COMMERCIAL, "zeroscope_v2_XL", _list_zeroscope("cerspense/zeroscope_v2_XL", "zs2_XL"),
        _advice(1024, 576),
    ),
    KnownModel(
        "potat1", "Potat1", "widescreen videos, 1024 x 576",
        NON_COMMERCIAL, "potat1",
        _list_original("kabachuha/potat1-with-text-encoder-original-format", 2.82, 2.607657443, 1.97),
        _advice(1024, 576),
    ),
    KnownModel(
        "animov", "Animov 0.1", "animation style, 384 x 384",
        NON_COMMERCIAL, "animov-0.1",
        _list_original("kabachuha/animov-0.1-modelscope-original-format", 2.82, 2.607657443, 1.97, VQGAN_SHA256),
        _advice(384, 384, frames=16),
    ),
    KnownModel(
        "t2v-turbo", "T2V-Turbo for ModelScope (LoRA)", "videos in 4 to 8 steps with the base model",
        NON_COMMERCIAL, None,
        (RemoteFile("jiachenli-ucsb/T2V-Turbo-MS", "unet_lora.pt", "t2v-turbo-ms.pt", 2.34e8),),
    ),
)  # fmt: skip


def describe_model(model: KnownModel, models: Path, loras: Path) -> str:
    """Return one line that describes a model to a person before a download."""
    there = " (installed)" if is_installed(model, models, loras) else ""
    return f"{model.label}{there}: {model.about}; about {format_bytes(model.size)}; {model.licence}"


def is_installed(model: KnownModel, models: Path, loras: Path) -> bool:
    """Return whether all files of a model are there, judged by their names and approximate sizes.

    A truncated file, or one of another precision, does not count.
    """
    goal = model.goal(models, loras)
    return all(_is_there(goal / file.name, file.size) for file in model.files)


def _is_there(path: Path, size: float) -> bool:
    return path.is_file() and (size < MEGABYTE or 0.8 < path.stat().st_size / size < 1.25)


def find_known(key: str) -> KnownModel | None:
    """Return the known model with this key, if there is one."""
    return next((model for model in KNOWN if model.key == key), None)


def advice_for(path: Path) -> Advice | None:
    """Return the advice for a model, if its name or that of the folder above it is a known model's."""
    names = [name.lower().removesuffix("-fp16") for name in (_drop_ending(path), path.parent.name)]
    # A converted model from a subfolder has the names of both folders, joined by a dash.
    known = (model for name in names for model in KNOWN if any(_fits(name, one) for one in _list_names(model)))
    return next((model.advice for model in known if model.advice), None)


def _fits(name: str, known: str) -> bool:
    return name == known or name.endswith(f"-{known}")


def _drop_ending(path: Path) -> str:
    return path.stem if path.suffix.lower() in WEIGHTS else path.name


def _list_names(model: KnownModel) -> set[str]:
    """Return the possible names of a model's folder: ours, the repository's, that of the folder there, and aliases."""
    first = model.files[1 if len(model.files) > 1 else 0]
    repository = first.repository.rpartition("/")[2]
    names = {model.folder or model.key, repository, Path(first.path).parent.name, *model.aliases}
    return {name.lower() for name in names if name}


def good_values(model: Path) -> Mapping[str, Any]:
    """Return good values for a request's fields: those in the model's configuration, or else the advice's.

    Raises:
        ModelError: The values in the configuration are not valid for a request.
    """
    advice, recommended = advice_for(model), read_model_config(model).recommended
    values = {name: value for name, value in recommended.items() if name in RECOMMENDABLE}
    try:
        GenerationRequest(**values)
    except RequestError as error:
        raise ModelError(
            f"{model / CONFIGURATION}: its recommended values are invalid. {error} Correct that line, or delete it."
        ) from error
    return values or (advice.recommended if advice else {})


def warn_beyond_training(model: Path, request: VideoRequest) -> str:
    """Say in what a request goes beyond a known model's training; an empty string if it does not."""
    advice = advice_for(model)
    return describe_excess(advice, request.width, request.height, request.frames) if advice else ""


def describe_excess(advice: Advice, width: int, height: int, frames: int) -> str:
    """Say in what a video's frames and size in pixels go beyond a model's training; an empty string if they do not."""
    found = []
    if frames > advice.most_frames:
        found.append(f"more than about {advice.most_frames} frames tend to fall apart")
    if width * height > 2 * advice.largest[0] * advice.largest[1]:
        found.append(f"it was trained at {advice.largest[0]} x {advice.largest[1]}, and repeats itself far above that")
    return f"Beyond what this model was trained for: {'; '.join(found)}." if found else ""
