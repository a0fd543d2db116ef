"""Copies the weights of a network's next part to the device while the present part computes."""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..errors import is_memory_error
from .pinned_copies import PinnedCopies, Source


class _Parcel(NamedTuple):
    """A part's weights by name, on the device or on the way. arrival: the event after which they may be used."""

    part: nn.Module
    tensors: dict[str, Tensor]
    arrival: Any


class Prefetcher:
    """A source of parts' weights that copies ahead. Parts have to be asked for in the same order in every pass.

    Args:
        source: Returns a part's weights. Pinned copies are sent to the device while it computes; other weights are
            returned without copying.
        device: The device that needs the weights.
    """

    def __init__(self, source: Source | PinnedCopies, device: torch.device) -> None:
        self._source, self._device = source, device
        self._kind: Any = _streams(device) if isinstance(source, PinnedCopies) else None
        self._stream: Any = self._kind.Stream(device) if self._kind else None
        self._follower: dict[nn.Module, nn.Module] = {}
        self._last: nn.Module | None = None
        self._coming: _Parcel | None = None

    def fetch(self, part: nn.Module) -> dict[str, Tensor]:
        """Return the part's weights by name, ready for use."""
        if self._last is not None:
            self._follower[self._last] = part
        self._last = part
        parcel = self._take()
        if parcel is None or parcel.part is not part:
            del parcel
            parcel = self._send(part)
            self._wait(parcel)
        return parcel.tensors

    def send_next(self, part: nn.Module) -> None:
        """Start copying the weights of the part that followed this one in the last pass."""
        follower = self._follower.get(part)
        if self._stream is not None and follower is not None and follower is not part:
            try:
                self._coming = self._send(follower)
            except (RuntimeError, MemoryError) as error:
                # The weights are copied when they are needed, into the memory that this part's weights have left.
                if not is_memory_error(error):
                    raise

    def close(self) -> None:
        """Drop the weights that are on their way."""
        self._take()

    def _take(self) -> _Parcel | None:
        parcel, self._coming = self._coming, None
        if parcel is not None:
            self._wait(parcel)
        return parcel

    def _wait(self, parcel: _Parcel) -> None:
        """Make the current stream wait for a copy: before its use, and before its memory is given to anybody else."""
        if self._kind:
            self._kind.current_stream(self._device).wait_event(parcel.arrival)

    def _send(self, part: nn.Module) -> _Parcel:
        if not isinstance(self._source, PinnedCopies):
            return _Parcel(part, self._source(part), None)
        pinned = self._source(part)
        # Allocated on the stream that computes, so that this stream can reuse the memory as soon as it is released.
        room = pinned.room_on(self._device)
        self._stream.wait_stream(self._kind.current_stream(self._device))
        with self._kind.stream(self._stream):
            pinned.copy_into(room)
            arrival = self._stream.record_event()
        return _Parcel(part, room.tensors(), arrival)


def copies_ahead(device: torch.device) -> bool:
    """Return whether the device can copy while it computes."""
    return _streams(device) is not None


def _streams(device: torch.device) -> Any:
    """Return torch's module for devices of this kind if they can copy while they compute, else None."""
    kind = getattr(torch, device.type, None)
    return kind if device.type in ("cuda", "xpu") and hasattr(kind, "Stream") else None
