"""Group norm over all frames and pixels of a clip, with statistics that are collected slice by slice."""

import functools
from typing import NamedTuple

import torch
from torch import Tensor, nn

from .slices import WHOLE, ChunkBudget

CONTIGUOUS = torch.contiguous_format
MIXED = ("cpu", "cuda", "xpu", "meta")
"""Kinds of devices whose kernels can read one precision and write another."""


class ClipNorm(NamedTuple):
    """A group norm whose statistics are known: a scale and a shift per channel, each [b, c, 1, 1]."""

    scale: Tensor
    shift: Tensor

    def __call__(self, part: Tensor) -> Tensor:
        """Normalise some frames or pixels of the clips: [b, c, f, p] -> the same shape.

        Channels come last in the result's memory if they do in the input's; else the result is contiguous. Convolutions
        of inputs in any other order are several times slower, at least on CPUs.
        """
        if torch.is_grad_enabled() or part.device.type not in MIXED:
            return torch.addcmul(self.shift, part, self.scale).to(part.dtype).contiguous()
        # Written into the result, so that no intermediate product in single precision is held.
        goal = torch.empty_like(part) if part.stride(1) == 1 else torch.empty_like(part, memory_format=CONTIGUOUS)
        return torch.addcmul(self.shift, part, self.scale, out=goal)


def measure_clip_norm(norm: nn.GroupNorm, clip: Tensor, budget: ChunkBudget) -> ClipNorm:
    """Collect the statistics that a norm needs, in float32 or better.

    Args:
        norm: the norm, over all frames and pixels of a clip.
        clip: [b, c, f, p].
        budget: how many values to hold at once; the clip is read in slices of frames.
    """
    grouped = clip.unflatten(1, (norm.num_groups, -1))  # [b, groups, c / groups, f, p]
    # CPUs are three times as quick with a copy in single precision.
    if clip.dtype.itemsize < torch.float32.itemsize and clip.device.type in MIXED and clip.device.type != "cpu":
        size, mean, squares = _measure_half(grouped)
    else:
        # A slice's distances from the mean and their squares are held at once.
        slices = budget.slices(clip.shape[2], 2 * clip[:, :, 0].numel())
        wide = torch.promote_types(clip.dtype, torch.float32)
        parts = (_measure(grouped[:, :, :, part].to(wide)) for part in slices)
        size, mean, squares = functools.reduce(_combine, parts)
    rate = (squares / size + norm.eps).rsqrt()
    weight, bias = (x.unflatten(0, (norm.num_groups, -1)) for x in (norm.weight, norm.bias))
    scale = weight * rate[:, :, None]
    shift = torch.addcmul(bias, mean[:, :, None], scale, value=-1)
    return ClipNorm(*(x.flatten(1)[:, :, None, None] for x in (scale, shift)))


def normalise_frames(norm: nn.GroupNorm, frames: Tensor) -> Tensor:
    """Apply a group norm to each of the frames [n, c, h, w] separately."""
    # torch's own norm changes the order in memory if channels come last.
    return norm(frames) if frames.is_contiguous() else measure_clip_norm(norm, frames, WHOLE)(frames)


class _Statistics(NamedTuple):
    """Statistics per clip and group: count of numbers, their mean, and the sum of squared distances from it, [b, g]."""

    size: int
    mean: Tensor
    squares: Tensor


def _measure(part: Tensor) -> _Statistics:
    """Compute the statistics of some frames, [b, g, c, f, p]."""
    mean = part.mean((2, 3, 4), keepdim=True)
    squares = (part - mean).square().sum((2, 3, 4))
    return _Statistics(part[0, 0].numel(), mean[:, :, 0, 0, 0], squares)


def _measure_half(part: Tensor) -> _Statistics:
    """Compute the statistics of numbers in half precision in single precision, without a copy of the numbers in it.

    Large squares are subtracted from each other, which loses less precision than the numbers' own rounding.
    """
    size = part[0, 0].numel()
    total = part.sum((2, 3, 4), dtype=torch.float32)
    length = torch.linalg.vector_norm(part, dim=(2, 3, 4), dtype=torch.float32)
    mean = total / size
    return _Statistics(size, mean, torch.addcmul(length.square(), total, mean, value=-1).clamp_min(0))


def _combine(a: _Statistics, b: _Statistics) -> _Statistics:
    """Compute the statistics of both parts together (Chan, Golub and LeVeque, 1979)."""
    size = a.size + b.size
    distance = b.mean - a.mean
    squares = a.squares + b.squares + distance.square() * (a.size * b.size / size)
    return _Statistics(size, a.mean + distance * (b.size / size), squares)
