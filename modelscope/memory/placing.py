"""Copies of weights where they are used, with what LoRAs add to them."""

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
    """Hold all of the module's weights at the place for as long as the context lasts.

    Args:
        module: Its own weights, in main memory, come back to it afterwards.
        place: Device and precision of the copies.
        deltas: What LoRAs add to the copies.
        copies: Weights that are at the place already, by name; none with deltas.
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
    """Return the tensors at the place, with the deltas in those that they are for.

    Args:
        tensors: Weights by name. Those with deltas are removed from it, so that they can be freed early.
        deltas: What is added, by the same names.
        place: Device and precision that is wanted.
        channels_last: Whether channels come last in memory.
    """
    # The largest first, while there is most room for the copy that it takes.
    largest_first = sorted(deltas, key=lambda name: -tensors[name].numel())
    found = {name: merge(tensors.pop(name), deltas[name], place.device).to(place.dtype) for name in largest_first}
    found |= dequantize(tensors, *place)
    # One after the other, so that only one is there twice.
    for name in found:
        found[name] = arrange(found[name], channels_last=channels_last)
    return found


def wants_channels_last(module: nn.Module, place: Place) -> bool:
    """Return whether the module is quicker there where channels come last in memory."""
    return getattr(module, "keeps_channels_last", False) and prefers_channels_last(place)


ORDERS = {4: torch.channels_last, 5: torch.channels_last_3d}
"""The order in memory of convolutions' weights with channels last, by their dimensions."""


def arrange(weight: Tensor, *, channels_last: bool) -> Tensor:
    """Return a weight as it is, or with its channels last in memory, if it is a convolution's and that is wanted."""
    return weight.contiguous(memory_format=ORDERS[weight.ndim]) if channels_last and weight.ndim in ORDERS else weight
