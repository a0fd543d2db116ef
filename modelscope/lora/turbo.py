"""T2V-Turbo (Li et al., 2024): a distilled network that takes the guidance scale as an input, instead of two passes.

No file has the base weights of the projection for this input. Here they are zeros, so the projection consists of what
the LoRA adds.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from ..memory.lora_deltas import Delta
from .targets import SCALE_DIM


def scale_embedding(scale: float, dim: int = SCALE_DIM) -> Tensor:
    """Return the sinusoids of a guidance scale, [1, dim], sines first, as in the original."""
    half = dim // 2
    frequencies = torch.exp(-math.log(10_000) / (half - 1) * torch.arange(half, dtype=torch.float32))
    angles = scale * 1000 * frequencies
    return torch.cat([angles.sin(), angles.cos()])[None]


def scale_condition(deltas: Sequence[Delta], scale: float) -> Tensor:
    """Return a guidance scale as the network takes it: [1, dim], to be added to the sinusoids of the timestep.

    deltas: those that make up the projection, [dim, SCALE_DIM].
    """
    weight = torch.stack([delta.scale * (delta.up.float() @ delta.down.float()) for delta in deltas]).sum(0)
    return F.linear(scale_embedding(scale), weight)
