"""Copies of weights where they are used, with what LoRAs add to them."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn

from ..device import Place
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
        assign(module, place_tensors(originals | (copies or {}), deltas, place))
        yield
    finally:
        assign(module, originals)


def place_tensors(tensors: dict[str, Tensor], deltas: Deltas, place: Place) -> dict[str, Tensor]:
    """Return the tensors at the place, with the deltas in those that they are for.

    Args:
        tensors: Weights by name. Those with deltas are removed from it, so that they can be freed early.
        deltas: What is added, by the same names.
        place: Device and precision that is wanted.
    """
    # The largest first, while there is most room for the copy that it takes.
    largest_first = sorted(deltas, key=lambda name: -tensors[name].numel())
    found = {name: merge(tensors.pop(name), deltas[name], place.device).to(place.dtype) for name in largest_first}
    return found | dequantize(tensors, *place)
