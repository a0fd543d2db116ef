"""Measures guided steps of others' networks, in the precision in which their own pipelines run."""

from contextlib import AbstractContextManager
from pathlib import Path

import torch
from torch import nn

from ...modelscope.errors import is_memory_error
from ...modelscope.network.unet3d import UNet3D
from ..rivals import diffusers_unet, extension_unet, modelscope_unet
from ..weights import random_weights
from .children import Outcome
from .guided_step import Inputs, Step, draw_inputs, forget_memory, measure_step
from .results import OUT_OF_MEMORY
from .rows import EXTENSION, Row
from .sizes import Sizes


class Rival:
    """A rival's network, with its weights on the card.

    Args:
        name: The rival's name.
        sizes: Sizes of the network and the clips.
        extension: A checkout of the 2023 extension; not used for other rivals.
    """

    def __init__(self, name: str, sizes: Sizes, extension: Path) -> None:
        self._name, self._sizes = name, sizes
        self._network = self._make(extension).requires_grad_(requires_grad=True)

    def _make(self, extension: Path) -> nn.Module:
        config, (device, dtype) = self._sizes.config.unet, self._sizes.place
        with torch.device("meta"):
            unet = UNet3D(config)
        # Modelscope's pipeline keeps its weights in single precision, and casts them when they are used.
        kept = torch.float32 if self._name == "modelscope" else dtype
        state = {name: value.to(kept) for name, value in random_weights(unet, device).items()}
        if self._name == "diffusers":
            return diffusers_unet(config, state)
        if self._name == "modelscope":
            return modelscope_unet(config, state)
        assert self._name == EXTENSION
        # On the device, since the random initialisation would take minutes on a CPU.
        with device:
            return extension_unet(extension, config, state).to(device)

    @torch.no_grad()
    def measure(self, row: Row) -> Outcome:
        """Measure a guided step."""
        forget_memory(self._sizes.place.device)
        try:
            inputs = draw_inputs(self._sizes.cases[row.case], self._sizes)
            with self._autocast():
                return {"figures": measure_step(self._step(inputs), self._sizes)}
        except (RuntimeError, MemoryError) as error:
            if not is_memory_error(error):
                raise
        return {"failure": OUT_OF_MEMORY}

    def _autocast(self) -> AbstractContextManager[object]:
        """Return the autocast in which both originals sample. It surrounds all steps, so that weights are cast once."""
        device, dtype = self._sizes.place
        return torch.autocast(device.type, dtype, enabled=self._name != "diffusers" and dtype != torch.float32)

    def _step(self, inputs: Inputs) -> Step:
        """Return a guided step: diffusers takes both texts as one batch, the originals one after the other."""
        network, (x, t, texts) = self._network, inputs
        if self._name == "diffusers":
            twice, both = torch.cat([x, x]), torch.cat(texts)
            return lambda: network(twice, t, both, return_dict=False)
        return lambda: [network(x, t, text) for text in texts]
