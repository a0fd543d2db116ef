"""Group norm over all frames and pixels of a clip, whose statistics are collected slice by slice."""

import functools
from typing import NamedTuple

import torch
from torch import Tensor, nn

from .slices import ChunkBudget


class ClipNorm(NamedTuple):
    """A group norm whose statistics are known: a factor and a summand per channel, each [b, c, 1, 1]."""

    scale: Tensor
    shift: Tensor

    def __call__(self, part: Tensor) -> Tensor:
        """Normalise some frames or pixels of the clips: [b, c, f, p] -> the same shape, contiguous."""
        # Convolutions of anything but contiguous numbers are several times slower, on CPUs at least.
        return torch.addcmul(self.shift, part, self.scale).to(part.dtype).contiguous()


def measure_clip_norm(norm: nn.GroupNorm, clip: Tensor, budget: ChunkBudget) -> ClipNorm:
    """Collect the statistics that a norm needs, at least in float32.

    Args:
        norm: over all frames and pixels of a clip.
        clip: [b, c, f, p].
        budget: how many values to hold at once; the clip is read in slices of frames.
    """
    grouped = clip.unflatten(1, (norm.num_groups, -1))  # [b, groups, c / groups, f, p]
    wide = torch.promote_types(clip.dtype, torch.float32)
    # Held are the slice in this precision, its distances from the mean, and their squares.
    each = 3 * clip[:, :, 0].numel() * wide.itemsize // clip.element_size()
    slices = budget.slices(clip.shape[2], each)
    parts = (_measure(grouped[:, :, :, part].to(wide)) for part in slices)
    size, mean, squares = functools.reduce(_combine, parts)
    per_group = clip.shape[1] // norm.num_groups
    rate, centre = (x.repeat_interleave(per_group, dim=1) for x in ((squares / size + norm.eps).rsqrt(), mean))
    scale = rate * norm.weight.to(wide)
    shift = norm.bias.to(wide) - centre * scale
    return ClipNorm(scale[:, :, None, None], shift[:, :, None, None])


class _Statistics(NamedTuple):
    """How many numbers, their mean and the sum of their squared distances from it, per clip and group: each [b, g]."""

    size: int
    mean: Tensor
    squares: Tensor


def _measure(part: Tensor) -> _Statistics:
    """Compute the statistics of some frames, [b, g, c, f, p]."""
    mean = part.mean((2, 3, 4), keepdim=True)
    squares = (part - mean).square().sum((2, 3, 4))
    return _Statistics(part[0, 0].numel(), mean[:, :, 0, 0, 0], squares)


def _combine(a: _Statistics, b: _Statistics) -> _Statistics:
    """Compute the statistics of both parts together (Chan, Golub and LeVeque, 1979)."""
    size = a.size + b.size
    distance = b.mean - a.mean
    squares = a.squares + b.squares + distance.square() * (a.size * b.size / size)
    return _Statistics(size, a.mean + distance * (b.size / size), squares)
