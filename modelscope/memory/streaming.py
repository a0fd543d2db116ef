"""Streaming of weights, which are on the device only while their part of the network runs."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from ..device import Place
from ..network.streamable import Streamable, assign, tensors_of
from .float8 import quantize
from .lora_deltas import NO_DELTAS, Deltas, merge, split_by_part
from .pinned_copies import PinnedCopies, Source
from .placing import arrange, place_tensors, wants_channels_last
from .prefetcher import Prefetcher, copies_ahead


@contextmanager
def stream_weights(module: Streamable, place: Place, deltas: Deltas = NO_DELTAS) -> Iterator[None]:
    """Keep each part's weights at the place only while the part runs, and shortly before.

    Args:
        module: The network, whose weights are in main memory.
        place: Device and precision in which its parts compute.
        deltas: What LoRAs add to the weights, merged each time that the weights arrive.
    """
    by_part = split_by_part(module, module.parts(), deltas)
    with _stream(module, place, tensors_of, by_part, ahead=copies_ahead(place.device)):
        yield


@contextmanager
def stream_quantized_weights(
    module: Streamable, place: Place, stored: torch.device, deltas: Deltas = NO_DELTAS
) -> Iterator[None]:
    """Stream weights as `stream_weights` does, but from copies in 8 bits that are made first.

    Args:
        module: The network, whose weights are in main memory.
        place: Device and precision in which its parts compute.
        stored: The device that stores the copies, which may be the place's own.
        deltas: What LoRAs add to the weights, merged before they are quantized.
    """
    by_part, full_precision_parts = split_by_part(module, module.parts(), deltas), module.full_precision_parts()
    channels_last = wants_channels_last(module, place)
    store = {
        part: _quantize_part(
            part,
            by_part[part],
            stored,
            place.dtype if part in full_precision_parts else None,
            channels_last=channels_last,
        )
        for part in module.parts()
    }
    ahead = stored != place.device and copies_ahead(place.device)
    with _stream(module, place, store.__getitem__, dict.fromkeys(store, NO_DELTAS), ahead=ahead):
        yield


def _quantize_part(
    part: nn.Module, deltas: Deltas, stored: torch.device, dtype: torch.dtype | None, *, channels_last: bool
) -> dict[str, Tensor]:
    """Copy a part's weights to the storing device, one after the other.

    dtype: the precision of the copies; None to quantize them to 8 bits.
    """
    store: dict[str, Tensor] = {}
    for name, tensor in tensors_of(part).items():
        complete = merge(tensor, deltas[name], stored) if name in deltas else tensor
        complete = arrange(complete, channels_last=channels_last)
        store |= quantize({name: complete}, stored) if dtype is None else {name: complete.to(dtype).to(stored)}
    return store


@contextmanager
def _stream(
    module: Streamable, place: Place, source: Source, deltas: Mapping[nn.Module, Deltas], *, ahead: bool
) -> Iterator[None]:
    channels_last = wants_channels_last(module, place)
    copies = PinnedCopies(source, deltas, place.dtype, channels_last=channels_last)
    prefetcher = Prefetcher(copies if ahead else source, place.device)

    @contextmanager
    def place_part(part: nn.Module) -> Iterator[None]:
        originals = tensors_of(part)
        try:
            tensors = place_tensors(prefetcher.fetch(part), deltas[part], place, channels_last=channels_last)
            assign(part, tensors)
            del tensors
            prefetcher.send_next(part)
            yield
        finally:
            assign(part, originals)

    module.weights = place_part
    try:
        yield
    finally:
        del module.weights
        prefetcher.close()
        copies.clear()
