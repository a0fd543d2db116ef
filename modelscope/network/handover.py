"""Hands tensors over to a layer, which then is their only owner."""

from torch import Tensor


class Handover:
    """A container of tensors for the next layer, which takes them out.

    A tensor lives as long as any variable refers to it, and a caller's variables outlive the call. A tensor in a
    handover belongs to the layer alone, which can free or overwrite it midway.
    """

    def __init__(self, *tensors: Tensor) -> None:
        self._tensors = list(tensors)

    def add(self, tensor: Tensor) -> None:
        """Add a tensor after the others."""
        self._tensors.append(tensor)

    def take(self) -> list[Tensor]:
        """Return all tensors, in order, and drop the references to them."""
        tensors, self._tensors = self._tensors, []
        return tensors
