"""The owner of all weights of a model that are on the device, during a run and between runs."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

import torch
from torch import Tensor, nn

from ..device import Place, free_unused, is_nvidia
from ..model import Model
from ..network.streamable import Streamable, tensors_of
from .lora_deltas import NO_DELTAS, Deltas
from .placing import place_tensors, place_weights, wants_channels_last
from .plan import Plan
from .recorded_pass import PassRecorder
from .streaming import stream_quantized_weights, stream_weights


class Residency:
    """The owner of a model's weights on the device: brings them for a run, and keeps some there between runs.

    Modules that are not in use hold their weights in main memory.
    """

    def __init__(self, model: Model) -> None:
        self.model = model
        self.recorder = PassRecorder()
        """The recorder of the UNet's passes."""
        self._kept: dict[tuple[nn.Module, str], Tensor] = {}
        """Maps a module and its name for one of its own weights to the copy on the device."""
        self._keeps_everything = False

    def keep(self, *, everything: bool) -> None:
        """Keep the UNet's weights, or all weights, on the device until they are released. May run out of memory."""
        if self._kept and self._keeps_everything == everything:
            return
        self.release()
        model, self._keeps_everything = self.model, everything
        self._keep(model.unet, model.place)
        if everything:
            self._keep(model.text_encoder, model.place)
            self._keep(model.autoencoder, model.vae_place)

    def release(self) -> None:
        """Free all weights that are kept."""
        self.recorder.forget()
        self._kept.clear()
        for place in (self.model.place, self.model.vae_place):
            free_unused(place.device)

    def bytes_kept(self, module: nn.Module, device: torch.device) -> int:
        """Return how many bytes of the module's weights are kept on devices of this kind."""
        copies = self._copies_of(module).values()
        return sum(x.numel() * x.element_size() for x in copies if x.device.type == device.type)

    @contextmanager
    def use(self, module: nn.Module, plan: Plan, place: Place, deltas: Deltas = NO_DELTAS) -> Iterator[None]:
        """Bring a module's weights to the device as the plan says, while the context lasts.

        Weights that are kept there are used if the plan wants all weights on the device and nothing is added to them.
        Before the device or the precision changes, call `release`.

        Args:
            module: A network of the model, or a part of one.
            plan: How the weights are brought; all of them at once if the module cannot be streamed.
            place: Device and precision in which the module computes.
            deltas: What LoRAs add to its weights.
        """
        copies = self._copies_of(module) if plan.is_resident and not deltas else {}
        weights = place_weights(module, place, copies=copies) if copies else use_weights(module, plan, place, deltas)
        try:
            with weights:
                yield
        finally:
            if module is self.model.unet and not copies:
                # The weights leave the addresses from which the recording reads them.
                self.recorder.forget()

    def recorder_for(self, plan: Plan, place: Place) -> PassRecorder | None:
        """Return the recorder for passes of the UNet under a plan, or None if they cannot be recorded."""
        return self.recorder if plan.is_resident and is_nvidia(place.device) else None

    def _keep(self, module: nn.Module, place: Place) -> None:
        channels_last = wants_channels_last(module, place)
        copies = place_tensors(tensors_of(module), NO_DELTAS, place, channels_last=channels_last)
        self._kept |= {_owner(module, name): copy for name, copy in copies.items()}

    def _copies_of(self, module: nn.Module) -> dict[str, Tensor]:
        names = {name: _owner(module, name) for name in tensors_of(module)} if self._kept else {}
        return {name: self._kept[owner] for name, owner in names.items() if owner in self._kept}


def _owner(module: nn.Module, name: str) -> tuple[nn.Module, str]:
    """Return the submodule that a weight belongs to, and the weight's name in it."""
    owner, _, own = name.rpartition(".")
    return module.get_submodule(owner), own


def use_weights(
    module: nn.Module, plan: Plan, place: Place, deltas: Deltas = NO_DELTAS
) -> AbstractContextManager[None]:
    """Bring the weights of a module as `Residency.use` does if none of them is kept."""
    if plan.is_resident or not isinstance(module, Streamable):
        return place_weights(module, place, deltas)
    if plan.eight_bits:
        stored = torch.device("cpu") if plan.streamed else place.device
        return stream_quantized_weights(module, place, stored, deltas)
    return stream_weights(module, place, deltas)
