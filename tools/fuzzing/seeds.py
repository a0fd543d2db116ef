"""The files to damage: small valid files, created for each reader, and the ways to damage them."""

import io
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import NamedTuple

import torch
from safetensors.torch import save
from torch import Tensor

from ...miniature.recipe import MODEL_FOLDER
from ...t2v_helpers.video.formats import FORMATS
from ...t2v_helpers.video.write import write_video
from . import mutants
from .mutants import Mutate

INFOTEXT = (
    "a red ball\nNegative prompt: blurry\nSteps: 25, Sampler: DDIM, CFG scale: 7, Seed: 7, Size: 64x64, Frames: 4"
)


class Seed(NamedTuple):
    """A valid file: its reader, its path, its content, and the ways to damage it."""

    reader: str
    place: str
    data: bytes
    ways: Sequence[Mutate]

    def mutant(self, random: Random) -> bytes:
        """Return the content, damaged in one of the ways."""
        return random.choice(self.ways)(random, self.data)


def lay_out(folder: Path) -> None:
    """Create the folders for the files, with other files that have to be there."""
    for name in ("files", "model", "diffusers/unet"):
        (folder / name).mkdir(parents=True)
    for file in MODEL_FOLDER.iterdir():
        shutil.copy(file, folder / "model")
    (folder / "diffusers" / "unet" / "a.safetensors").write_bytes(save(_tensors()))


def seeds() -> list[Seed]:
    """Return all valid files."""
    return [*_weights(), *_loras(), *_documents(), *_videos()]


def _tensors() -> dict[str, Tensor]:
    return {
        "a.weight": torch.ones(4, 3),
        "b": torch.arange(8, dtype=torch.float16),
        "c": torch.ones(2, dtype=torch.bool),
    }


def _weights() -> Iterator[Seed]:
    plain, old = _save(_tensors(), zipped=True), _save(_tensors(), zipped=False)
    whole = _save({"state_dict": _tensors(), "epoch": 3, "args": {1, 2}}, zipped=True)
    for data in (plain, whole):
        yield Seed(
            "weights, zip", "files/x.pth", data, (mutants.damage, mutants.damage_zip, _mutate_with(mutants.zip_pickle))
        )
    yield Seed("weights, before torch 1.6", "files/y.pth", old, (mutants.damage, _mutate_with(mutants.write_old_file)))
    yield Seed(
        "weights, safetensors", "files/z.safetensors", save(_tensors()), (mutants.damage, mutants.damage_safetensors)
    )


def _mutate_with(wrap: Callable[[bytes], bytes]) -> Mutate:
    return lambda random, _: wrap(mutants.any_pickle(random))


def _save(content: object, *, zipped: bool) -> bytes:
    file = io.BytesIO()
    torch.save(content, file, _use_new_zipfile_serialization=zipped)
    return file.getvalue()


def _loras() -> Iterator[Seed]:
    from safetensors.torch import load_file

    tensors = dict(list(load_file(next((MODEL_FOLDER.parent / "lora").glob("*.safetensors"))).items())[:4])
    alphas = tensors | {next(iter(tensors)).rsplit(".lora", 1)[0] + ".alpha": torch.tensor(2.0)}
    metadata = {"lora_adapter_metadata": json.dumps({"unet.lora_alpha": 4, "unet.alpha_pattern": {"to_q": 2}})}
    for content in (tensors, alphas):
        data = save(content, metadata)
        yield Seed("LoRA", "files/l.safetensors", data, (mutants.damage, mutants.damage_safetensors))
        yield Seed("LoRA", "files/l.pt", _save(content, zipped=True), (mutants.damage, mutants.damage_zip))
    yield Seed("LoRA", "files/l.pt", _save(list(tensors.values()), zipped=False), (mutants.damage,))


def _documents() -> Iterator[Seed]:
    ways = (mutants.damage, mutants.damage_json, mutants.damage_json)
    configuration = (MODEL_FOLDER / "configuration.json").read_bytes()
    unet = {
        "_class_name": "UNet3DConditionModel", "block_out_channels": [320, 640, 1280, 1280], "in_channels": 4,
        "cross_attention_dim": 1024, "attention_head_dim": 64, "layers_per_block": 2,
        "down_block_types": ["CrossAttnDownBlock3D"],
    }  # fmt: skip
    index = {"metadata": {"total_size": 1}, "weight_map": {"a": "a.safetensors", "b": "a.safetensors"}}
    yield Seed("configuration", "model/configuration.json", configuration, ways)
    yield Seed("configuration, diffusers", "diffusers/unet/config.json", json.dumps(unet).encode(), ways)
    name = "diffusers/unet/diffusion_pytorch_model.safetensors.index.json"
    yield Seed("index", name, json.dumps(index).encode(), ways)


def _videos() -> Iterator[Seed]:
    """Yield a tiny video in each format, with its settings in it."""
    frames = torch.zeros(2, 16, 16, 3, dtype=torch.uint8)
    with TemporaryDirectory() as folder:
        for kind in FORMATS.values():
            path = Path(folder, f"video{kind.suffix}")
            write_video(path, frames, 8, kind, INFOTEXT)
            file = next(path.iterdir()) if path.is_dir() else path
            yield Seed("infotext", f"files/v{file.suffix}", file.read_bytes(), (mutants.damage,))
