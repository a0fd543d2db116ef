"""Copies of weights in memory that a device reads by itself, while it computes."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from .float8 import is_quantized
from .lora_deltas import Deltas
from .placing import arrange

Source = Callable[[nn.Module], dict[str, Tensor]]
"""A part of a network to its weights by name, as they are stored."""
ALIGNMENT = 256
"""Bytes; what kernels want of an address."""


class _Slot(NamedTuple):
    """Where a tensor is within a piece of memory. start: in bytes."""

    start: int
    like: Tensor

    def within(self, memory: Tensor) -> Tensor:
        size = self.like.numel() * self.like.element_size()
        values = memory[self.start : self.start + size].view(self.like.dtype)
        return values.as_strided(self.like.shape, self.like.stride())


class PinnedPart(NamedTuple):
    """A part's weights in page-locked ("pinned") memory, or a copy of that on the device.

    Most are in one piece, so that they are copied at once.

    memory: the piece, in bytes; slots: where each tensor is in it; loose: those with a piece of their own.
    """

    memory: Tensor
    slots: Mapping[str, _Slot]
    loose: Mapping[str, Tensor]

    def tensors(self) -> dict[str, Tensor]:
        """Return all weights by name."""
        return {name: slot.within(self.memory) for name, slot in self.slots.items()} | dict(self.loose)

    def room_on(self, device: torch.device) -> "PinnedPart":
        """Return room for a copy."""
        loose = {name: torch.empty_like(tensor, device=device) for name, tensor in self.loose.items()}
        return PinnedPart(torch.empty_like(self.memory, device=device), self.slots, loose)

    def copy_into(self, room: "PinnedPart") -> None:
        """Begin to copy. Return before that is done."""
        room.memory.copy_(self.memory, non_blocking=True)
        for name, tensor in self.loose.items():
            room.loose[name].copy_(tensor, non_blocking=True)


class PinnedCopies:
    """Copies of parts, made when they are asked for the first time, in the precision that is wanted.

    What is in 8 bits stays so. Weights to which LoRAs add something keep their file's precision and are loose, so that
    each can be freed when it is merged.

    Args:
        source: Where the weights are stored.
        deltas: What LoRAs add to each part's weights.
        dtype: The precision that is wanted.
        channels_last: Whether channels come last in memory.
    """

    def __init__(
        self, source: Source, deltas: Mapping[nn.Module, Deltas], dtype: torch.dtype, *, channels_last: bool = False
    ) -> None:
        self._source, self._deltas, self._dtype, self._channels_last = source, deltas, dtype, channels_last
        self._copies: dict[nn.Module, PinnedPart] = {}

    def __call__(self, part: nn.Module) -> PinnedPart:
        """Return the part's copies."""
        if part not in self._copies:
            tensors, added = self._source(part), self._deltas[part]
            loose = {name: _pin(tensor) for name, tensor in tensors.items() if name in added}
            ready = {
                name: tensor if is_quantized(name, tensors) else self._convert(tensor)
                for name, tensor in tensors.items()
                if name not in added
            }
            self._copies[part] = PinnedPart(*_pack(ready), loose)
        return self._copies[part]

    def _convert(self, tensor: Tensor) -> Tensor:
        return arrange(tensor.to(self._dtype), channels_last=self._channels_last)

    def clear(self) -> None:
        """Free all copies."""
        self._copies.clear()


def _pack(tensors: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, _Slot]]:
    """Return pinned memory with all tensors in it, and where each is."""
    slots, size = {}, 0
    for name, tensor in tensors.items():
        # Its order in memory, without gaps.
        slots[name] = _Slot(size, torch.empty_like(tensor, device="meta"))
        size += -(-tensor.numel() * tensor.element_size() // ALIGNMENT) * ALIGNMENT
    memory = _make_pinned(size)
    for name, tensor in tensors.items():
        slots[name].within(memory).copy_(tensor)
    return memory, slots


def _make_pinned(size: int) -> Tensor:
    try:
        return torch.empty(size, dtype=torch.uint8, pin_memory=True)
    except RuntimeError:
        # The system allows no more of it: copying takes longer then, and is right all the same.
        return torch.empty(size, dtype=torch.uint8)


def _pin(tensor: Tensor) -> Tensor:
    try:
        return tensor.pin_memory()
    except RuntimeError:
        # As above.
        return tensor
