"""Copies the weights of a network's next part to the device while the present part computes."""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..errors import is_memory_error
from .pinned_copies import PinnedCopies, Source


class _Parcel(NamedTuple):
    """A part's weights by name, on the device. arrival: the event after which they may be used."""

    part: nn.Module
    tensors: dict[str, Tensor]
    arrival: Any


class Prefetcher:
    """Gets the weights of parts, which are asked for in the same order in every pass.

    Args:
        source: Where the weights are stored; pinned for a device that copies while it computes. If not, they are
            returned as they are.
        device: Where they are wanted.
    """

    def __init__(self, source: Source | PinnedCopies, device: torch.device) -> None:
        self._source, self._device = source, device
        self._kind: Any = _streams(device) if isinstance(source, PinnedCopies) else None
        self._stream: Any = self._kind.Stream(device) if self._kind else None
        self._follower: dict[nn.Module, nn.Module] = {}
        self._last: nn.Module | None = None
        self._coming: _Parcel | None = None

    def fetch(self, part: nn.Module) -> dict[str, Tensor]:
        """The part's weights by name, ready for use."""
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
        """Begin to copy the weights of the part that came after this one in the last pass."""
        follower = self._follower.get(part)
        if self._stream is not None and follower is not None and follower is not part:
            try:
                self._coming = self._send(follower)
            except (RuntimeError, MemoryError) as error:
                # It comes when it is needed, where this part was.
                if not is_memory_error(error):
                    raise

    def close(self) -> None:
        """Drop what is on its way."""
        self._take()

    def _take(self) -> _Parcel | None:
        parcel, self._coming = self._coming, None
        if parcel is not None:
            self._wait(parcel)
        return parcel

    def _wait(self, parcel: _Parcel) -> None:
        """Before use, and before the memory may be given to anybody else."""
        if self._kind:
            self._kind.current_stream(self._device).wait_event(parcel.arrival)

    def _send(self, part: nn.Module) -> _Parcel:
        if not isinstance(self._source, PinnedCopies):
            return _Parcel(part, self._source(part), None)
        pinned = self._source(part)
        # Memory of the stream that computes, so that it is free again for that one as soon as it is let go.
        room = pinned.room_on(self._device)
        self._stream.wait_stream(self._kind.current_stream(self._device))
        with self._kind.stream(self._stream):
            pinned.copy_into(room)
            arrival = self._stream.record_event()
        return _Parcel(part, room.tensors(), arrival)


def copies_ahead(device: torch.device) -> bool:
    """Return whether the device copies while it computes."""
    return _streams(device) is not None


def _streams(device: torch.device) -> Any:
    """torch's module for devices of this kind, if they copy while they compute."""
    kind = getattr(torch, device.type, None)
    return kind if device.type in ("cuda", "xpu") and hasattr(kind, "Stream") else None
