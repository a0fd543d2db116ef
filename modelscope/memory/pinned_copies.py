"""Copies of weights in pinned memory, which a device can read while it computes."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from .float8 import is_quantized
from .lora_deltas import Deltas
from .placing import arrange

Source = Callable[[nn.Module], dict[str, Tensor]]
"""Maps a part of a network to its weights by name, as they are stored."""
ALIGNMENT = 256
"""Alignment of tensors in bytes, as kernels need it."""


class _Slot(NamedTuple):
    """Location of a tensor in a block of memory. start: in bytes; like: a meta tensor with its type and layout."""

    start: int
    like: Tensor

    def within(self, memory: Tensor) -> Tensor:
        size = self.like.numel() * self.like.element_size()
        values = memory[self.start : self.start + size].view(self.like.dtype)
        return values.as_strided(self.like.shape, self.like.stride())


class PinnedPart(NamedTuple):
    """A part's weights in page-locked ("pinned") memory, or a copy of that on the device.

    Most weights are in one block of memory, so that they are copied at once.

    memory: the block, as bytes; slots: the location of each weight in it; loose: weights that are not in it.
    """

    memory: Tensor
    slots: Mapping[str, _Slot]
    loose: Mapping[str, Tensor]

    def tensors(self) -> dict[str, Tensor]:
        """Return all weights by name."""
        return {name: slot.within(self.memory) for name, slot in self.slots.items()} | dict(self.loose)

    def room_on(self, device: torch.device) -> "PinnedPart":
        """Allocate memory for a copy."""
        loose = {name: torch.empty_like(tensor, device=device) for name, tensor in self.loose.items()}
        return PinnedPart(torch.empty_like(self.memory, device=device), self.slots, loose)

    def copy_into(self, room: "PinnedPart") -> None:
        """Start copying, and return before the copy is complete."""
        room.memory.copy_(self.memory, non_blocking=True)
        for name, tensor in self.loose.items():
            room.loose[name].copy_(tensor, non_blocking=True)


class PinnedCopies:
    """Copies of parts in a precision, made when a part is first asked for.

    Weights in 8 bits are not converted. Weights to which LoRAs add something keep their file's precision and are loose,
    so that each can be freed when it is merged.

    Args:
        source: Returns a part's weights.
        deltas: What LoRAs add to each part's weights.
        dtype: The precision of the copies.
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
    """Return pinned memory with all tensors in it, and the location of each."""
    slots, size = {}, 0
    for name, tensor in tensors.items():
        # An empty tensor with the same order in memory, without gaps.
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
        # The system allows no more pinned memory: copying then takes longer, but is still correct.
        return torch.empty(size, dtype=torch.uint8)


def _pin(tensor: Tensor) -> Tensor:
    try:
        return tensor.pin_memory()
    except RuntimeError:
        # As in `_make_pinned`.
        return tensor
