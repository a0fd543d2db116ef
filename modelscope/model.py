"""A model as data: its three networks, its configuration, and where they compute."""

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
        text_encoder: Prompts to features.
        unet: Predicts the noise in latents.
        autoencoder: Latents to frames.
        place: Where the text encoder and the UNet compute.
        vae_place: Where the autoencoder computes.
        lender: Folder of the other model whose autoencoder this is, if its own files have none.
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
    """Return a model with the shapes of all weights, but without their numbers."""
    with torch.device("meta"):
        parts = TextEncoder(config.text), UNet3D(config.unet), Autoencoder(config.autoencoder)
    return Model(config, *parts, place, vae_place)
