"""Copies weights to where they are used, and merges LoRAs into the copies."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from ..device import Place, prefers_channels_last
from ..network.streamable import assign, tensors_of
from .float8 import dequantize
from .lora_deltas import NO_DELTAS, Deltas, merge


@contextmanager
def place_weights(
    module: nn.Module, place: Place, deltas: Deltas = NO_DELTAS, copies: dict[str, Tensor] | None = None
) -> Iterator[None]:
    """Keep copies of all of the module's weights at the place while the context lasts.

    Args:
        module: The module, which gets its own weights in main memory back afterwards.
        place: Device and precision of the copies.
        deltas: What LoRAs add to the copies.
        copies: Weights that are already at the place, by name; none of them may have deltas.
    """
    originals = tensors_of(module)
    try:
        channels_last = wants_channels_last(module, place)
        assign(module, place_tensors(originals | (copies or {}), deltas, place, channels_last=channels_last))
        yield
    finally:
        assign(module, originals)


def place_tensors(
    tensors: dict[str, Tensor], deltas: Deltas, place: Place, *, channels_last: bool = False
) -> dict[str, Tensor]:
    """Return copies of the tensors at the place, with the deltas merged.

    Args:
        tensors: Weights by name. Those with deltas are removed from the dictionary, so that they can be freed early.
        deltas: What is added, by the same names.
        place: Device and precision of the copies.
        channels_last: Whether channels come last in memory.
    """
    # The largest first, while there is still most room for the additional copy that merging takes.
    largest_first = sorted(deltas, key=lambda name: -tensors[name].numel())
    found = {name: merge(tensors.pop(name), deltas[name], place.device).to(place.dtype) for name in largest_first}
    found |= dequantize(tensors, *place)
    # One after the other, so that only one is in memory twice.
    for name in found:
        found[name] = arrange(found[name], channels_last=channels_last)
    return found


def wants_channels_last(module: nn.Module, place: Place) -> bool:
    """Return whether the module is quicker at the place if channels come last in memory."""
    return getattr(module, "keeps_channels_last", False) and prefers_channels_last(place)


ORDERS = {4: torch.channels_last, 5: torch.channels_last_3d}
"""The memory formats with channels last, by the number of dimensions of a convolution's weight."""


def arrange(weight: Tensor, *, channels_last: bool) -> Tensor:
    """Return a weight; a convolution's with its channels last in memory, if `channels_last` is True."""
    return weight.contiguous(memory_format=ORDERS[weight.ndim]) if channels_last and weight.ndim in ORDERS else weight
