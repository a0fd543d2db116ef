"""Tensors on their way to a layer."""

from torch import Tensor


class Handover:
    """Holds tensors for the layer that gets them next, which takes them out.

    A tensor lives as long as a variable of anybody names it, and a caller's variables outlive the call. What is handed
    over belongs to the layer alone, so it can be freed, or overwritten, in the middle of it.
    """

    def __init__(self, *tensors: Tensor) -> None:
        self._tensors = list(tensors)

    def add(self, tensor: Tensor) -> None:
        """Hold one more, after the others."""
        self._tensors.append(tensor)

    def take(self) -> list[Tensor]:
        """Return all of them, in order, and hold them no longer."""
        tensors, self._tensors = self._tensors, []
        return tensors
