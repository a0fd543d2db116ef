"""What LoRAs add to weights: pairs of small matrices that belong to a network for as long as a run wears them.

The weights themselves rest unchanged. `streaming.py` merges when it brings them to where they are used, so whatever comes
without deltas is what it always was.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

_WORN = "worn_deltas"
"""The attribute of a module that owns weights: its own names of them -> deltas."""


@dataclass(frozen=True)
class Delta:
    """scale * up @ down, to be added in a weight's shape.

    up: [m, rank]; down: [rank, n]; third: of the weight's rows, if it goes to one of the thirds only.
    """

    up: Tensor
    down: Tensor
    scale: float = 1.0
    third: int | None = None

    def add_to(self, weight: Tensor) -> None:
        """Change a weight in place."""
        rows = weight if self.third is None else weight.chunk(3)[self.third]
        up, down = self.up.to(rows), self.down.to(rows)
        if len(up) * down.shape[1] == rows.numel():
            rows.view(len(up), -1).addmm_(up, down, alpha=self.scale)
        else:
            rows.add_(_averaged(up @ down, rows.shape), alpha=self.scale)

    def times(self, factor: float) -> "Delta":
        """The same, so many times as strong."""
        return Delta(self.up, self.down, factor * self.scale, self.third)


def fits(shape: Sequence[int], up: Sequence[int], down: Sequence[int]) -> bool:
    """Whether matrices of these shapes make something that can be added to a weight, or a third of one, of that shape.

    Filters of a convolution are rows, or each row of a filter is (stable_lora).
    """
    rows, columns, side = shape[0], torch.Size(shape[1:]).numel(), (*shape, 1, 1)[2]
    return up[1] == down[0] and (up[0], down[1]) in {(rows, columns), (rows * side, shape[1] * side)}


def _averaged(product: Tensor, shape: torch.Size) -> Tensor:
    """stable_lora makes square filters, of which convolutions along one dimension get the mean."""
    side = shape[2]
    return product.view(*shape[:2], side, side, 1).mean(-2, keepdim=True)


def merged(weight: Tensor, deltas: Iterable[Delta], device: torch.device) -> Tensor:
    """A copy of the weight with the deltas in it, in single precision on the device."""
    # Whatever was mapped from a file stays as it is.
    whole = weight.to(device, torch.float32, copy=True).contiguous()
    for delta in deltas:
        delta.add_to(whole)
    return whole


class MergeSize(NamedTuple):
    """What merging holds at once, beside what it returns."""

    weight: int
    """Numbers of the weight."""
    single: int
    """Numbers in single precision: its copy, and factors and product of a delta."""


def merge_size(weight: Tensor, deltas: Iterable[Delta]) -> MergeSize:
    """Of one weight."""
    products = [0]
    for delta in deltas:
        factors = delta.up.numel() + delta.down.numel()
        product = len(delta.up) * delta.down.shape[1]
        averaged = product > weight.numel()
        products.append(factors + (product + weight.numel() if averaged else 0))
    return MergeSize(weight.numel(), weight.numel() + max(products))


@contextmanager
def worn(module: nn.Module, deltas: Mapping[str, Sequence[Delta]]) -> Iterator[None]:
    """The module's weights of these names come with the deltas in them while inside."""
    by_owner: dict[nn.Module, dict[str, Sequence[Delta]]] = defaultdict(dict)
    for name, added in deltas.items():
        owner, _, own = name.rpartition(".")
        by_owner[module.get_submodule(owner)][own] = added
    try:
        for owned, named in by_owner.items():
            owned.__dict__[_WORN] = named
        yield
    finally:
        for owned in by_owner:
            owned.__dict__.pop(_WORN, None)


def deltas_of(module: nn.Module) -> dict[str, Sequence[Delta]]:
    """What is to be added to the module's weights, by name."""
    found: dict[str, Sequence[Delta]] = {}
    for prefix, owner in module.named_modules():
        for own, added in owner.__dict__.get(_WORN, {}).items():
            found[f"{prefix}.{own}" if prefix else own] = added
    return found
