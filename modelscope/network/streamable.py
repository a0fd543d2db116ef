"""Networks that announce which part runs next, so that others can bring its weights; and access to weights by name."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

from torch import Tensor, nn

Weights = Callable[[nn.Module], AbstractContextManager[None]]
"""Takes a part of a network and returns a context in which its weights are on the device."""


def at_hand(part: nn.Module) -> AbstractContextManager[None]:  # noqa: ARG001 - the signature of Weights
    """Return a context that does nothing, for weights that are on the device already."""
    return nullcontext()


def tensors_of(module: nn.Module) -> dict[str, Tensor]:
    """Return a module's parameters and buffers by name."""
    return {**dict(module.named_parameters()), **dict(module.named_buffers())}


def assign(module: nn.Module, tensors: dict[str, Tensor]) -> None:
    """Replace a module's parameters and buffers by these tensors.

    This does not use load_state_dict, which AUTOMATIC1111's WebUI replaces for everybody while it loads a model.
    """
    owners = dict(module.named_modules())
    for name, tensor in tensors.items():
        owner, _, own = name.rpartition(".")
        # Not setattr, which takes three times as long: this runs for every part in every pass.
        parameters = owners[owner]._parameters  # noqa: SLF001
        if own in parameters:
            parameters[own] = nn.Parameter(tensor, requires_grad=False)
        else:
            setattr(owners[owner], own, tensor)


class Streamable(nn.Module):
    """A network that enters `weights` for each of its parts while the part runs."""

    weights: Weights = staticmethod(at_hand)
    keeps_channels_last = False
    """True if its layers return tensors in the memory order of their convolutions' weights."""

    def parts(self) -> list[nn.Module]:
        """Return the modules that the network passes to `weights`, in the order of its forward pass."""
        raise NotImplementedError

    def full_precision_parts(self) -> list[nn.Module]:
        """Return the parts whose weights are never quantized."""
        return []
