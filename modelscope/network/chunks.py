"""Layers on a piece of the clip at a time: the same result, with less held at once."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

Pieces = list[slice]


class Chunks(NamedTuple):
    """How much a layer may hold besides what it was given and what it returns.

    values: numbers, not bytes; None for no limit. One frame, pixel or token is taken at least, however large it is.
    """

    values: int | None = None

    def pieces(self, count: int, each: int) -> Pieces:
        """Slices of `count` items that need `each` values apiece; even ones, so that no last one is tiny."""
        most = count if self.values is None else max(1, self.values // each)
        number = -(-count // most)
        return [slice(count * i // number, count * (i + 1) // number) for i in range(number)]


WHOLE = Chunks()
"""Everything at once."""


def mapped(function: Callable[[slice], Tensor], pieces: Pieces, dim: int = 0, into: Tensor | None = None) -> Tensor:
    """The function's results for all pieces as one tensor: `into`, of that shape, if the pieces are several."""
    if len(pieces) == 1:
        return function(pieces[0])
    for piece in pieces:
        part = function(piece)
        if into is None:
            shape = list(part.shape)
            shape[dim] = pieces[-1].stop
            into = part.new_empty(shape)
        into.movedim(dim, 0)[piece] = part.movedim(dim, 0)
        del part
    assert into is not None
    return into


def plus(x: Tensor, change: Tensor) -> Tensor:
    """x + change: in x itself, unless gradients are wanted."""
    return x + change if torch.is_grad_enabled() else x.add_(change)


def added(x: Tensor, function: Callable[[slice], Tensor], pieces: Pieces, dim: int = 0) -> Tensor:
    """x plus the function's results for its pieces: in x itself, unless gradients are wanted."""
    if torch.is_grad_enabled():
        return x + mapped(function, pieces, dim)
    rows = x.movedim(dim, 0)
    for piece in pieces:
        rows[piece] += function(piece).movedim(dim, 0)
    return x


def activated(x: Tensor) -> Tensor:
    """SiLU of a tensor that nobody else needs: in place, unless gradients are wanted."""
    return nn.functional.silu(x, inplace=not torch.is_grad_enabled())


class ClipNorm(NamedTuple):
    """A group norm over whole clips as a factor and a summand, each [b, c, 1, 1]."""

    scale: Tensor
    shift: Tensor

    def __call__(self, part: Tensor) -> Tensor:
        """Normalise some frames or pixels of the clips: [b, c, f, p] -> the same, contiguous."""
        # Convolutions of anything but contiguous numbers are several times slower, on CPUs at least.
        return torch.addcmul(self.shift, part, self.scale).to(part.dtype).contiguous()


def clip_norm(norm: nn.GroupNorm, clip: Tensor, chunks: Chunks) -> ClipNorm:
    """The norm of clips [b, c, f, p], its statistics collected piece by piece, at least in float32."""
    grouped = clip.unflatten(1, (norm.num_groups, -1))
    wide = torch.promote_types(clip.dtype, torch.float32)
    # Held are the piece in this precision, its distances from the mean, and their squares.
    each = 3 * clip[:, :, 0].numel() * wide.itemsize // clip.element_size()
    pieces = chunks.pieces(clip.shape[2], each)
    size, mean, squares = functools.reduce(
        _combined, (_statistics(grouped[:, :, :, piece].to(wide)) for piece in pieces)
    )
    per_channel = clip.shape[1] // norm.num_groups
    rate, centre = (x.repeat_interleave(per_channel, dim=1) for x in ((squares / size + norm.eps).rsqrt(), mean))
    scale = rate * norm.weight.to(wide)
    shift = norm.bias.to(wide) - centre * scale
    return ClipNorm(scale[:, :, None, None], shift[:, :, None, None])


class _Statistics(NamedTuple):
    """How many numbers, their mean, and the sum of their squared distances from it."""

    size: int
    mean: Tensor
    squares: Tensor


def _statistics(part: Tensor) -> _Statistics:
    """Of [b, g, c, f, p], per clip and group."""
    mean = part.mean((2, 3, 4), keepdim=True)
    squares = (part - mean).square().sum((2, 3, 4))
    return _Statistics(part[0, 0].numel(), mean[:, :, 0, 0, 0], squares)


def _combined(a: _Statistics, b: _Statistics) -> _Statistics:
    """Those of both together (Chan, Golub and LeVeque, 1979)."""
    size = a.size + b.size
    distance = b.mean - a.mean
    squares = a.squares + b.squares + distance.square() * (a.size * b.size / size)
    return _Statistics(size, a.mean + distance * (b.size / size), squares)
