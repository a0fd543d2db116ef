"""Writes a trained miniature in the original's file layout, in half precision."""

from pathlib import Path

import torch
from torch import Tensor, nn

from ..modelscope.config import write_config
from .recipe import MINIATURE


def _half(module: nn.Module, prefix: str = "") -> dict[str, Tensor]:
    state = module.state_dict()
    return {prefix + name: tensor.detach().half().cpu().contiguous() for name, tensor in state.items()}


def export(folder: Path, unet: nn.Module, autoencoder: nn.Module, tower: nn.Module) -> None:
    """Write configuration.json and the three weight files."""
    folder.mkdir(parents=True, exist_ok=True)
    files = MINIATURE.files
    torch.save(_half(unet), folder / files.ckpt_unet)
    torch.save({"state_dict": _half(autoencoder, "first_stage_model.")}, folder / files.ckpt_autoencoder)
    torch.save(_half(tower), folder / files.ckpt_clip)
    write_config(folder, MINIATURE)
