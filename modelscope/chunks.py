"""Layers on a piece of the clip at a time: the same result, with less held at once."""

from collections.abc import Callable, Iterable
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
    pieces = chunks.pieces(clip.shape[2], 2 * clip[0, :, 0].numel())
    mean, variance = _combined(_statistics(grouped[:, :, :, piece].to(wide)) for piece in pieces)
    per_channel = clip.shape[1] // norm.num_groups
    rate, centre = (x.repeat_interleave(per_channel, dim=1) for x in ((variance + norm.eps).rsqrt(), mean))
    scale = rate * norm.weight.to(wide)
    shift = norm.bias.to(wide) - centre * scale
    return ClipNorm(scale[:, :, None, None], shift[:, :, None, None])


class _Statistics(NamedTuple):
    size: int
    mean: Tensor
    variance: Tensor


def _statistics(part: Tensor) -> _Statistics:
    """Of [b, g, c, f, p], per clip and group."""
    mean = part.mean((2, 3, 4), keepdim=True)
    variance = (part - mean).square().mean((2, 3, 4))
    return _Statistics(part[0, 0].numel(), mean[:, :, 0, 0, 0], variance)


def _combined(parts: Iterable[_Statistics]) -> tuple[Tensor, Tensor]:
    """Mean and variance of all (Chan, Golub and LeVeque, 1979)."""
    count, mean, squares = 0, torch.zeros(()), torch.zeros(())
    for part in parts:
        total = count + part.size
        distance = part.mean - mean.to(part.mean)
        squares = squares.to(part.mean) + part.variance * part.size + distance.square() * (count * part.size / total)
        mean = mean.to(part.mean) + distance * (part.size / total)
        count = total
    return mean, squares / count
