"""The deltas that LoRAs add to weights: pairs of small matrices, which are passed on separately from the network.

The weights themselves do not change. `placing.py` and `streaming.py` merge the matrices into the copies that go to the
device, so weights without deltas are exactly those in the file.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import NamedTuple

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Delta:
    """A product scale * up @ down that is added to a weight, in the weight's shape.

    Args:
        up: [m, rank].
        down: [rank, n].
        scale: The factor of the product.
        third: Index of the third of the weight's rows that the product is added to; None for all rows.
    """

    up: Tensor
    down: Tensor
    scale: float = 1.0
    third: int | None = None

    def add_to(self, weight: Tensor) -> None:
        """Add the product to a weight in place."""
        rows = weight if self.third is None else weight.chunk(3)[self.third]
        up, down = self.up.to(rows), self.down.to(rows)
        if len(up) * down.shape[1] == rows.numel():
            rows.view(len(up), -1).addmm_(up, down, alpha=self.scale)
        else:
            rows.add_(_average_filters(up @ down, rows.shape), alpha=self.scale)

    def times(self, factor: float) -> "Delta":
        """Return the same delta, `factor` times as strong."""
        return Delta(self.up, self.down, factor * self.scale, self.third)


Deltas = Mapping[str, Sequence[Delta]]
"""The deltas of a network's weights, by the weights' names."""
NO_DELTAS: Deltas = MappingProxyType({})


@dataclass(frozen=True)
class LoraDeltas:
    """The deltas that a LoRA, or several together, add to a model.

    Args:
        unet: Deltas of the UNet's weights.
        text: Deltas of the text encoder's weights.
        guidance: Deltas that make up T2V-Turbo's projection of the guidance scale, which no checkpoint has.
    """

    unet: Deltas = field(default_factory=dict)
    text: Deltas = field(default_factory=dict)
    guidance: Sequence[Delta] = ()

    def __bool__(self) -> bool:
        return bool(self.unet or self.text or self.guidance)

    @property
    def is_turbo(self) -> bool:
        """True if they make the model a T2V-Turbo, which is guided by an input instead of by a second pass."""
        return bool(self.guidance)

    def times(self, unet: float, text: float) -> "LoraDeltas":
        """Return the deltas at these strengths for the UNet and the text encoder; a network at 0 is left out."""
        guidance = [delta.times(unet) for delta in self.guidance if unet]
        return LoraDeltas(_scale_deltas(self.unet, unet), _scale_deltas(self.text, text), guidance)


NO_LORAS = LoraDeltas()


def _scale_deltas(deltas: Deltas, factor: float) -> Deltas:
    return {name: [delta.times(factor) for delta in added] for name, added in deltas.items()} if factor else {}


def fits(shape: Sequence[int], up: Sequence[int], down: Sequence[int]) -> bool:
    """Return whether the product of two matrices can be added to a weight.

    A row of the product is one filter of a convolution, or one row of a filter (stable_lora).

    Args:
        shape: Shape of the weight, or of the third of it that is meant.
        up: Shape of the first matrix, [m, rank].
        down: Shape of the second matrix, [rank, n].
    """
    rows, columns, side = shape[0], torch.Size(shape[1:]).numel(), (*shape, 1, 1)[2]
    return up[1] == down[0] and (up[0], down[1]) in {(rows, columns), (rows * side, shape[1] * side)}


def _average_filters(product: Tensor, shape: torch.Size) -> Tensor:
    """Return the mean over the last side of stable_lora's square filters, for convolutions along one dimension."""
    side = shape[2]
    return product.view(*shape[:2], side, side, 1).mean(-2, keepdim=True)


def merge(weight: Tensor, deltas: Iterable[Delta], device: torch.device) -> Tensor:
    """Return a copy of the weight with the deltas added, in single precision on the device."""
    # Always a copy: a tensor that is mapped from a file must not change.
    whole = weight.to(device, torch.float32, copy=True).contiguous()
    for delta in deltas:
        delta.add_to(whole)
    return whole


class MergeSize(NamedTuple):
    """Counts of numbers that are held while deltas are merged into one weight, besides the result.

    Args:
        weight: Numbers of the weight, in the precision of its file.
        single: Numbers in single precision: the weight's copy, and the factors and product of a delta.
    """

    weight: int
    single: int


def merge_size(weight: Tensor, deltas: Iterable[Delta]) -> MergeSize:
    """Return how many numbers `merge` holds for this weight and these deltas."""
    products = [0]
    for delta in deltas:
        factors = delta.up.numel() + delta.down.numel()
        product = len(delta.up) * delta.down.shape[1]
        averaged = product > weight.numel()
        products.append(factors + (product + weight.numel() if averaged else 0))
    return MergeSize(weight.numel(), weight.numel() + max(products))


def split_by_part(module: nn.Module, parts: Iterable[nn.Module], deltas: Deltas) -> dict[nn.Module, Deltas]:
    """Return the deltas of each part of a network, by the weights' names within the part.

    Args:
        module: The network whose weights `deltas` names.
        parts: Submodules of the network, none inside another.
        deltas: What is added to the network's weights; deltas of weights outside all parts are left out.
    """
    found: dict[nn.Module, dict[str, Sequence[Delta]]] = {part: {} for part in parts}
    prefixes = {f"{name}.": part for name, part in module.named_modules() if part in found} if deltas else {}
    for name, added in deltas.items():
        dots = (end for end, letter in enumerate(name, 1) if letter == ".")
        prefix = next((name[:end] for end in dots if name[:end] in prefixes), None)
        if prefix is not None:
            found[prefixes[prefix]][name[len(prefix) :]] = added
    return dict(found)
