"""A model as data: its three networks, its configuration, and the devices on which they compute."""

from dataclasses import dataclass
from pathlib import Path

import torch

from .config import ModelConfig
from .device import Place
from .network.autoencoder import Autoencoder
from .network.text_encoder import TextEncoder
from .network.unet3d import UNet3D


@dataclass(frozen=True)
class Model:
    """A loaded model: three modules in eval mode whose weights are in main memory.

    Args:
        config: Sizes of the networks.
        text_encoder: Turns prompts into features.
        unet: Predicts the noise in latents.
        autoencoder: Turns latents into frames.
        place: Device and precision of the text encoder and the UNet.
        vae_place: Device and precision of the autoencoder.
        lender: Folder of the model that the autoencoder is borrowed from, if this model's files have none.
        files: All files that the weights are read from.
    """

    config: ModelConfig
    text_encoder: TextEncoder
    unet: UNet3D
    autoencoder: Autoencoder
    place: Place
    vae_place: Place
    lender: Path | None = None
    files: tuple[Path, ...] = ()


def outline(config: ModelConfig, place: Place, vae_place: Place) -> Model:
    """Return a model on the meta device: all weights have their shapes, but no numbers."""
    with torch.device("meta"):
        parts = TextEncoder(config.text), UNet3D(config.unet), Autoencoder(config.autoencoder)
    return Model(config, *parts, place, vae_place)
