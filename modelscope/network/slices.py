"""Runs layers on one slice of a clip at a time: the result is the same as for the whole, and takes less memory."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

IMAGES = 4
"""Number of dimensions of tensors whose channels may come last: [n, c, h, w] or [b, c, f, p]."""
Slices = list[slice]
"""Adjacent slices of a dimension, which together cover all of it."""


class ChunkBudget(NamedTuple):
    """Limit on what a layer may hold besides its input and its output.

    values: number of values (not bytes); None for no limit. A layer takes at least one frame, pixel or token at a time,
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
"""A budget without a limit: everything at once."""


def map_slices(function: Callable[[slice], Tensor], slices: Slices, dim: int = 0, into: Tensor | None = None) -> Tensor:
    """Run a function on each slice and return its results as one tensor.

    Args:
        function: takes a slice and returns a tensor, which is as long as the slice along `dim`.
        slices: slices of a dimension.
        dim: the dimension along which the results are joined.
        into: a tensor for the results, of their joint shape; not used if there is only one slice.
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
    """Return an empty tensor for several results, with the memory order of one: contiguous or channels last."""
    channels_last = result.ndim == IMAGES and result.stride(1) == 1 and not result.is_contiguous()
    memory_format = torch.channels_last if channels_last else torch.contiguous_format
    return torch.empty(shape, dtype=result.dtype, device=result.device, memory_format=memory_format)


def add_slices(x: Tensor, function: Callable[[slice], Tensor], slices: Slices, dim: int = 0) -> Tensor:
    """Return x plus a function's results for slices of it: in x itself, unless gradients are needed.

    Args:
        x: a tensor of any shape.
        function: takes a slice of dimension `dim` and returns what to add there.
        slices: slices of dimension `dim`.
        dim: the dimension that is sliced.
    """
    if torch.is_grad_enabled():
        return x + map_slices(function, slices, dim)
    rows = x.movedim(dim, 0)
    for part in slices:
        rows[part] += function(part).movedim(dim, 0)
    return x


def scale_results(function: Callable[[slice], Tensor], factor: float) -> Callable[[slice], Tensor]:
    """Return a function whose results are those of another times a factor; a factor of 1 changes nothing at all."""
    return function if factor == 1 else lambda part: function(part) * factor


def add_into(x: Tensor, change: Tensor) -> Tensor:
    """Return x + change: in x itself, unless gradients are needed."""
    return x + change if torch.is_grad_enabled() else x.add_(change)


def apply_silu(x: Tensor) -> Tensor:
    """Return SiLU of a tensor that nobody else needs: in place, unless gradients are needed."""
    return nn.functional.silu(x, inplace=not torch.is_grad_enabled())


def repeat_rows(x: Tensor, count: int) -> Tensor:
    """Repeat each row of x [b, ...] count / b times, with its copies adjacent: [count, ...]; a view if b is 1."""
    # Not repeat_interleave, for which a card waits in older versions of torch.
    rows = x[:, None].expand(-1, count // len(x), *x.shape[1:])
    return rows.flatten(0, 1)
