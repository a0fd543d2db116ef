"""Copies of weights in memory that a device reads by itself, while it computes."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from .float8 import is_quantized
from .lora_deltas import Deltas

Source = Callable[[nn.Module], dict[str, Tensor]]
"""A part of a network to its weights by name, as they are stored."""


class PinnedCopies:
    """A `Source` whose tensors are page-locked ("pinned") and in the precision that is wanted.

    Those in 8 bits stay so, and those to which LoRAs add something keep their file's precision.
    """

    def __init__(self, source: Source, deltas: Mapping[nn.Module, Deltas], dtype: torch.dtype) -> None:
        self._source, self._deltas, self._dtype = source, deltas, dtype
        self._copies: dict[nn.Module, dict[str, Tensor]] = {}

    def __call__(self, part: nn.Module) -> dict[str, Tensor]:
        """The part's copies, made when they are asked for the first time."""
        if part not in self._copies:
            tensors, added = self._source(part), self._deltas[part]
            self._copies[part] = {
                name: _pin(tensor if name in added or is_quantized(name, tensors) else tensor.to(self._dtype))
                for name, tensor in tensors.items()
            }
        return self._copies[part]

    def clear(self) -> None:
        """Free all copies."""
        self._copies.clear()


def _pin(tensor: Tensor) -> Tensor:
    try:
        return tensor.pin_memory()
    except RuntimeError:
        # The system allows no more of it: copying takes longer then, and is right all the same.
        return tensor
