"""Layers on some slices of a clip at a time: the same result as at once, with less memory held."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

IMAGES = 4
"""Dimensions of tensors in which channels may come last: [n, c, h, w] or [b, c, f, p]."""
Slices = list[slice]
"""Neighbouring parts of one dimension, which together cover all of it."""


class ChunkBudget(NamedTuple):
    """How much a layer may hold besides its input and its output.

    values: how many numbers (not bytes); None for no limit. A layer takes at least one frame, pixel or token at a time,
    however large that is.
    """

    values: int | None = None

    def slices(self, count: int, each: int) -> Slices:
        """Cut a dimension into slices of nearly equal length, each within the budget.

        Args:
            count: the dimension's length.
            each: how many values a layer holds for one item of it.
        """
        most = count if self.values is None else max(1, self.values // each)
        number = -(-count // most)
        return [slice(count * i // number, count * (i + 1) // number) for i in range(number)]


WHOLE = ChunkBudget()
"""Everything at once."""


def map_slices(function: Callable[[slice], Tensor], slices: Slices, dim: int = 0, into: Tensor | None = None) -> Tensor:
    """Run a function on each slice and return its results as one tensor.

    Args:
        function: gets a slice and returns a tensor, which is as long as the slice along `dim`.
        slices: of a dimension.
        dim: where the results are put side by side.
        into: a tensor for the results, of their joint shape. Left alone if there is only one slice.
    """
    if len(slices) == 1:
        return function(slices[0])
    for part in slices:
        result = function(part)
        if into is None:
            shape = list(result.shape)
            shape[dim] = slices[-1].stop
            into = _empty_like(result, shape)
        into.movedim(dim, 0)[part] = result.movedim(dim, 0)
        del result
    assert into is not None
    return into


def _empty_like(result: Tensor, shape: list[int]) -> Tensor:
    """Return room for several results in the order in memory that one has, contiguous or with channels last."""
    channels_last = result.ndim == IMAGES and result.stride(1) == 1 and not result.is_contiguous()
    memory_format = torch.channels_last if channels_last else torch.contiguous_format
    return torch.empty(shape, dtype=result.dtype, device=result.device, memory_format=memory_format)


def add_slices(x: Tensor, function: Callable[[slice], Tensor], slices: Slices, dim: int = 0) -> Tensor:
    """Return x plus a function's results for slices of it: in x itself, unless gradients are wanted.

    Args:
        x: any shape.
        function: gets a slice of dimension `dim` and returns what to add there.
        slices: of that dimension.
        dim: which one.
    """
    if torch.is_grad_enabled():
        return x + map_slices(function, slices, dim)
    rows = x.movedim(dim, 0)
    for part in slices:
        rows[part] += function(part).movedim(dim, 0)
    return x


def add_into(x: Tensor, change: Tensor) -> Tensor:
    """Return x + change: in x itself, unless gradients are wanted."""
    return x + change if torch.is_grad_enabled() else x.add_(change)


def apply_silu(x: Tensor) -> Tensor:
    """Return SiLU of a tensor that nobody else needs: in place, unless gradients are wanted."""
    return nn.functional.silu(x, inplace=not torch.is_grad_enabled())


def repeat_rows(x: Tensor, count: int) -> Tensor:
    """Repeat each row of x [b, ...] count / b times, next to each other: [count, ...]; a view if b is 1."""
    # Not by repeat_interleave: in older versions of torch a card waits for it.
    rows = x[:, None].expand(-1, count // len(x), *x.shape[1:])
    return rows.flatten(0, 1)
