"""Models in several layouts, written from the golden networks."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from ..benchmarks.rivals import diffusers_config
from ..modelscope.diffusers_names import text_names, to_diffusers, unet_names, vae_names
from ..modelscope.layouts import Library
from ..modelscope.loading import Model, load_model
from .support import CPU, small_config, small_model


def state(model: Model) -> dict[str, Tensor]:
    parts = (model.text_encoder, model.unet, model.autoencoder)
    return {f"{i}.{key}": value for i, part in enumerate(parts) for key, value in part.state_dict().items()}


def assert_golden_weights(path: Path, library: Library | None = None) -> Model:
    model, expected = load_model(path, CPU, library=library), state(small_model())
    assert model.config.unet == small_config().unet
    assert state(model).keys() == expected.keys()
    assert all(torch.equal(value.float(), expected[key]) for key, value in state(model).items())
    return model


Write = Callable[[dict[str, Tensor], Path, str], None]


def write_diffusers(folder: Path, write: Write, blocks: int = 2) -> Path:
    """The golden networks as diffusers writes them. write: tensors, a part's folder, the stem of its file."""
    model, config = small_model(), small_config()
    text = to_diffusers(model.text_encoder.state_dict(), text_names)
    for number in range(2, blocks):
        text |= {n.replace("layers.1.", f"layers.{number}."): x.clone() for n, x in text.items() if "layers.1." in n}
    parts: dict[str, tuple[dict[str, Tensor], dict[str, Any]]] = {
        "unet": (to_diffusers(model.unet.state_dict(), unet_names(config)), diffusers_config(config.unet)),
        "vae": (
            to_diffusers(model.autoencoder.state_dict(), vae_names(config)),
            {"block_out_channels": [32, 64, 64, 64], "layers_per_block": 2, "latent_channels": 4},
        ),
        "text_encoder": (
            text,
            {"hidden_size": 32, "num_attention_heads": 2, "num_hidden_layers": blocks, "vocab_size": 49408},
        ),
    }
    for part, (tensors, values) in parts.items():
        (folder / part).mkdir(parents=True)
        (folder / part / "config.json").write_text(json.dumps(values), encoding="utf-8")
        stem = "diffusion_pytorch_model" if part != "text_encoder" else ""
        write({name: x.half().contiguous().clone() for name, x in tensors.items()}, folder / part, stem)
    (folder / "model_index.json").write_text('{"unet": ["models.unet_3d_condition", null]}', encoding="utf-8")
    return folder


def as_safetensors(tensors: dict[str, Tensor], folder: Path, stem: str) -> None:
    save_file(tensors, folder / f"{stem or 'model'}.safetensors")


def as_bin(tensors: dict[str, Tensor], folder: Path, stem: str) -> None:
    torch.save(tensors, folder / f"{stem or 'pytorch_model'}.bin")


def as_half_variant(tensors: dict[str, Tensor], folder: Path, stem: str) -> None:
    torch.save(tensors, folder / f"{stem or 'pytorch_model'}.fp16.bin")
    # Were it read, it would be noticed.
    torch.save({name: torch.zeros_like(x) for name, x in tensors.items()}, folder / f"{stem or 'pytorch_model'}.bin")


def as_shards(tensors: dict[str, Tensor], folder: Path, stem: str) -> None:
    stem = stem or "model"
    names = sorted(tensors)
    halves = names[: len(names) // 2], names[len(names) // 2 :]
    where = {}
    for number, half in enumerate(halves, 1):
        file = f"{stem}-0000{number}-of-00002.safetensors"
        save_file({name: tensors[name] for name in half}, folder / file)
        where |= dict.fromkeys(half, file)
    (folder / f"{stem}.safetensors.index.json").write_text(json.dumps({"weight_map": where}), encoding="utf-8")


def as_in_2023(tensors: dict[str, Tensor], folder: Path, stem: str) -> None:
    """With the autoencoder's old names, and positions beside the text tower's weights."""
    if folder.name == "vae":
        for today, before in {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}.items():
            tensors = {name.replace(f".{today}.", f".{before}."): x for name, x in tensors.items()}
    elif folder.name == "text_encoder":
        tensors |= {"text_model.embeddings.position_ids": torch.arange(77)[None]}
    as_bin(tensors, folder, stem)


def as_transformers_5(tensors: dict[str, Tensor], folder: Path, stem: str) -> None:
    as_safetensors({name.removeprefix("text_model."): x for name, x in tensors.items()}, folder, stem)
