"""A model as data: its three networks, its configuration, and where they compute."""

from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import torch

from .config import ModelConfig
from .device import Place, free_unused
from .memory.streaming import resident
from .network.autoencoder import Autoencoder
from .network.text_encoder import TextEncoder
from .network.unet3d import UNet3D


@dataclass(frozen=True)
class Model:
    """A loaded model: three modules in eval mode whose weights rest in main memory, and where they shall compute.

    lender: the folder of the other model whose autoencoder it uses, if it lacks one; files: all that are mapped.
    """

    config: ModelConfig
    text_encoder: TextEncoder
    unet: UNet3D
    autoencoder: Autoencoder
    place: Place
    vae_place: Place
    lender: Path | None = None
    files: tuple[Path, ...] = ()
    _stays: ExitStack = field(default_factory=ExitStack, repr=False, compare=False)

    def stay(self, *, everything: bool) -> None:
        """Let the UNet's weights, or all, be where they compute until they `leave`. May run out of memory."""
        self.leave()
        self._stays.enter_context(resident(self.unet, self.place))
        if everything:
            self._stays.enter_context(resident(self.text_encoder, self.place))
            self._stays.enter_context(resident(self.autoencoder, self.vae_place))

    def leave(self) -> None:
        """All weights rest in main memory again."""
        self._stays.close()
        for place in (self.place, self.vae_place):
            free_unused(place.device)


def outline(config: ModelConfig, place: Place, vae_place: Place) -> Model:
    """The model's shapes without its weights."""
    with torch.device("meta"):
        parts = TextEncoder(config.text), UNet3D(config.unet), Autoencoder(config.autoencoder)
    return Model(config, *parts, place, vae_place)
