"""Writes a model of full size in each layout, and measures loading it."""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from ..modelscope.checkpoints.diffusers_keys import text_names, to_diffusers, unet_names, vae_names
from ..modelscope.checkpoints.load import load_model
from ..modelscope.config import AutoencoderConfig, ModelConfig, TextConfig, write_config
from ..modelscope.device import Place
from ..modelscope.model import Model, outline
from ..modelscope.network.streamable import assign
from .load import peak_gigabytes
from .rivals import diffusers_config

HEADER = ("layout", "on disk GB", "ready after s", "peak memory GB", "of which after the imports")
CPU = Place(torch.device("cpu"), torch.float32)

Write = Callable[[dict[str, Tensor], Path, str], None]
"""Writes tensors into a part's folder. Takes the stem of the file's name; an empty one means the text encoder's usual
name."""


def write_diffusers(folder: Path, write: Write, model: Model, blocks: int | None = None) -> Path:
    """Write a model as diffusers does, in half precision. blocks: number of the text tower's, if more than are used."""
    config, used = model.config, model.config.text.layers - 1
    text = to_diffusers(model.text_encoder.state_dict(), text_names)
    last = f"layers.{used - 1}."
    for number in range(used, blocks or used):
        # No two blocks are equal.
        text |= {name.replace(last, f"layers.{number}."): x + number for name, x in text.items() if last in name}
    parts = {
        "unet": (to_diffusers(model.unet.state_dict(), unet_names(config)), diffusers_config(config.unet)),
        "vae": (to_diffusers(model.autoencoder.state_dict(), vae_names(config)), _vae_config(config.autoencoder)),
        "text_encoder": (text, _text_config(config.text, blocks or used)),
    }
    for part, (tensors, values) in parts.items():
        (folder / part).mkdir(parents=True)
        (folder / part / "config.json").write_text(json.dumps(values), encoding="utf-8")
        stem = "diffusion_pytorch_model" if part != "text_encoder" else ""
        write({name: x.half().contiguous().clone() for name, x in tensors.items()}, folder / part, stem)
    (folder / "model_index.json").write_text('{"unet": ["models.unet_3d_condition", null]}', encoding="utf-8")
    return folder


def _vae_config(config: AutoencoderConfig) -> dict[str, Any]:
    widths = [config.ch * multiple for multiple in config.ch_mult]
    return {
        "block_out_channels": widths,
        "layers_per_block": config.num_res_blocks,
        "latent_channels": config.z_channels,
        "down_block_types": ["DownEncoderBlock2D"] * len(widths),
        "up_block_types": ["UpDecoderBlock2D"] * len(widths),
    }


def _text_config(config: TextConfig, blocks: int) -> dict[str, Any]:
    return {
        "hidden_size": config.width,
        "intermediate_size": 4 * config.width,
        "num_attention_heads": config.heads,
        "num_hidden_layers": blocks,
        "vocab_size": config.vocab_size,
    }


def write_original(folder: Path, model: Model, dtype: torch.dtype = torch.float16) -> Path:
    """Write a model in the original's files, with the configuration."""
    folder.mkdir(parents=True)
    files = model.config.files
    vae = {f"first_stage_model.{name}": x.to(dtype) for name, x in model.autoencoder.state_dict().items()}
    torch.save({"state_dict": vae}, folder / files.ckpt_autoencoder)
    for name, part in ((files.ckpt_clip, model.text_encoder), (files.ckpt_unet, model.unet)):
        torch.save({key: x.to(dtype) for key, x in part.state_dict().items()}, folder / name)
    write_config(folder, model.config)
    return folder


def as_safetensors(tensors: dict[str, Tensor], folder: Path, stem: str) -> None:
    """Write one safetensors file, as diffusers does today."""
    save_file(tensors, folder / f"{stem or 'model'}.safetensors")


def as_bin(tensors: dict[str, Tensor], folder: Path, stem: str) -> None:
    """Write one pickle, as diffusers did in 2023."""
    torch.save(tensors, folder / f"{stem or 'pytorch_model'}.bin")


def as_half_variant(tensors: dict[str, Tensor], folder: Path, stem: str) -> None:
    """Write the variant in half precision, and a file of zeros instead of the one in single precision."""
    torch.save(tensors, folder / f"{stem or 'pytorch_model'}.fp16.bin")
    torch.save({name: torch.zeros_like(x) for name, x in tensors.items()}, folder / f"{stem or 'pytorch_model'}.bin")


def as_shards(tensors: dict[str, Tensor], folder: Path, stem: str) -> None:
    """Write two safetensors files and an index."""
    stem = stem or "model"
    names = sorted(tensors)
    halves = names[: len(names) // 2], names[len(names) // 2 :]
    where: dict[str, str] = {}
    for number, half in enumerate(halves, 1):
        file = f"{stem}-0000{number}-of-00002.safetensors"
        save_file({name: tensors[name] for name in half}, folder / file)
        where |= dict.fromkeys(half, file)
    (folder / f"{stem}.safetensors.index.json").write_text(json.dumps({"weight_map": where}), encoding="utf-8")


def as_in_2023(tensors: dict[str, Tensor], folder: Path, stem: str) -> None:
    """Write one pickle with the autoencoder's old names, and with positions among the text tower's weights."""
    if folder.name == "vae":
        for today, before in {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}.items():
            tensors = {name.replace(f".{today}.", f".{before}."): x for name, x in tensors.items()}
    elif folder.name == "text_encoder":
        tensors |= {"text_model.embeddings.position_ids": torch.arange(77)[None]}
    as_bin(tensors, folder, stem)


def as_transformers_5(tensors: dict[str, Tensor], folder: Path, stem: str) -> None:
    """Write one safetensors file without the text tower's prefix."""
    as_safetensors({name.removeprefix("text_model."): x for name, x in tensors.items()}, folder, stem)


WAYS: dict[str, Callable[[Path, Model], Path]] = {
    "original, .pth": write_original,
    "original, .pth, single precision": lambda folder, model: write_original(folder, model, torch.float32),
    "diffusers, .safetensors": lambda folder, model: write_diffusers(folder, as_safetensors, model),
    "diffusers, .bin": lambda folder, model: write_diffusers(folder, as_bin, model),
    "diffusers, split": lambda folder, model: write_diffusers(folder, as_shards, model),
}


def measure(folder: Path) -> list[list[str]]:
    """Write a model in each layout into the folder, one after the other, and load each in a separate process."""
    rows = []
    for number, (way, write) in enumerate(WAYS.items()):
        place = write(folder / str(number), _model())
        size = sum(path.stat().st_size for path in place.rglob("*") if path.is_file()) / 1e9
        command = [sys.executable, "-m", __spec__.name, str(place)]
        printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        rows.append([way, *(f"{value:.2f}" for value in (size, *json.loads(printed.splitlines()[-1])))])
        for path in place.rglob("*.*"):
            path.unlink()
    return rows


def _model() -> Model:
    """Return a model of full size, in which all numbers are the same."""
    model = outline(ModelConfig(), CPU, CPU)
    for part in (model.text_encoder, model.unet, model.autoencoder):
        shapes = part.state_dict().items()
        assign(part, {name: torch.full(x.shape, 0.01, dtype=torch.float16) for name, x in shapes})
    return model


def main(folder: Path) -> None:
    """Load a model once, so that the files are in memory, then again, and print the figures of the second time."""
    before = peak_gigabytes()
    load_model(folder, CPU)
    start = time.perf_counter()
    load_model(folder, CPU)
    sys.stdout.write(json.dumps([time.perf_counter() - start, peak_gigabytes(), peak_gigabytes() - before]) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
