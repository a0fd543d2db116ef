"""Networks that say when they use which of their parts, so that others can bring the weights; and weights by name."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

from torch import Tensor, nn

Weights = Callable[[nn.Module], AbstractContextManager[None]]
"""Called with a part of a network: its weights are on the device while inside."""


def at_hand(part: nn.Module) -> AbstractContextManager[None]:  # noqa: ARG001 - as Weights
    """For weights that are there already."""
    return nullcontext()


def tensors_of(module: nn.Module) -> dict[str, Tensor]:
    """Its parameters and buffers by name."""
    return {**dict(module.named_parameters()), **dict(module.named_buffers())}


def assign(module: nn.Module, tensors: dict[str, Tensor]) -> None:
    """Make the tensors the module's own.

    Not by load_state_dict: while AUTOMATIC1111's WebUI loads a model, it has replaced that one for everybody.
    """
    owners = dict(module.named_modules())
    for name, tensor in tensors.items():
        owner, _, own = name.rpartition(".")
        # Not by setattr, which takes three times as long: this is done for every part of every pass.
        parameters = owners[owner]._parameters  # noqa: SLF001
        if own in parameters:
            parameters[own] = nn.Parameter(tensor, requires_grad=False)
        else:
            setattr(owners[owner], own, tensor)


class Streamable(nn.Module):
    """A network that says when it uses which of its parts; `weights` brings them."""

    weights: Weights = staticmethod(at_hand)
    keeps_channels_last = False
    """Whether its layers keep the order in memory that their convolutions' weights have."""

    def parts(self) -> list[nn.Module]:
        """Return what it calls `weights` with, in the order of its forward pass."""
        raise NotImplementedError

    def full_precision_parts(self) -> list[nn.Module]:
        """Those of its parts whose weights keep their precision in any case."""
        return []
