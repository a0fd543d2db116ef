"""Reads the configuration of a model in diffusers' layout: a config.json next to each part's weights."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..config import MISTAKES, AutoencoderConfig, ModelConfig, TextConfig, UNetConfig, validate
from ..errors import ModelError, first_line
from ..json_files import read_json
from .parts import PARTS, TEXT, UNET, VAE

CONFIG = "config.json"


def has_part_configs(folder: Path) -> bool:
    """Return whether any part has its own configuration in a model's folder."""
    return any(os.path.isfile(folder / part.folder / CONFIG) for part in PARTS)  # noqa: PTH113 - a locked one is none


def read_diffusers_config(folder: Path) -> ModelConfig:
    """Return the parts' shapes; a part without a configuration gets the 1.7B's. Raises ModelError."""
    return ModelConfig(
        unet=_read(folder / UNET.folder / CONFIG, _parse_unet, UNetConfig()),
        autoencoder=_read(folder / VAE.folder / CONFIG, _parse_autoencoder, AutoencoderConfig()),
        text=_read(folder / TEXT.folder / CONFIG, _parse_text, TextConfig()),
    )


def _read(path: Path, parse: Callable[[dict[str, Any]], Any], default: Any) -> Any:
    try:
        if not path.is_file():
            return default
        return validate(parse(read_json(path)))
    except MISTAKES as error:
        raise ModelError(
            f"{path}: is not this part's configuration ({first_line(error)}). Delete it to use the 1.7B "
            "model's configuration instead, or download the raw file again: a saved web page does not work."
        ) from error


def _parse_unet(values: dict[str, Any]) -> UNetConfig:
    """Parse the values of a UNet3DConditionModel, whose attention_head_dim really is the width of a head."""
    widths = values["block_out_channels"]
    blocks = values.get("down_block_types", ["CrossAttn"] * 3 + [""])
    return UNetConfig(
        in_dim=int(values.get("in_channels", 4)),
        out_dim=int(values.get("out_channels", 4)),
        dim=int(widths[0]),
        dim_mult=_divide_widths(widths),
        context_dim=int(values["cross_attention_dim"]),
        head_dim=int(values["attention_head_dim"]),
        num_res_blocks=int(values.get("layers_per_block", 2)),
        attn_scales=[0.5**level for level, block in enumerate(blocks) if block.startswith("CrossAttn")],
    )


def _parse_autoencoder(values: dict[str, Any]) -> AutoencoderConfig:
    widths = values["block_out_channels"]
    return AutoencoderConfig(
        in_channels=int(values.get("in_channels", 3)),
        out_ch=int(values.get("out_channels", 3)),
        z_channels=int(values.get("latent_channels", 4)),
        embed_dim=int(values.get("latent_channels", 4)),
        ch=int(widths[0]),
        ch_mult=_divide_widths(widths),
        num_res_blocks=int(values.get("layers_per_block", 2)),
    )


def _parse_text(values: dict[str, Any]) -> TextConfig:
    """Parse the values of a CLIPTextModel. diffusers' files leave out the unused last block, or have all 24."""
    return TextConfig(
        context_length=int(values.get("max_position_embeddings", 77)),
        vocab_size=int(values["vocab_size"]),
        width=int(values["hidden_size"]),
        heads=int(values["num_attention_heads"]),
        layers=min(int(values["num_hidden_layers"]) + 1, TextConfig().layers),
    )


def _divide_widths(widths: list[int]) -> list[int]:
    if any(width % widths[0] for width in widths):
        raise ValueError(f"the widths {widths} are not all multiples of the first")
    return [width // widths[0] for width in widths]
