"""Where a run computes: the host's choice and the setting VAE Mode."""

from typing import NamedTuple

import torch

from ..modelscope.device import Place
from .settings import VAE_CPU, VAE_FULL


class Places(NamedTuple):
    """Where to compute; the autoencoder may have a place of its own."""

    model: Place
    vae: Place


def places(device: torch.device, dtype: torch.dtype, vae_dtype: torch.dtype, vae_mode: str) -> Places:
    """The host's choice, changed by the setting VAE Mode."""
    if vae_mode == VAE_CPU:
        return Places(Place(device, dtype), Place(torch.device("cpu"), torch.float32))
    return Places(Place(device, dtype), Place(device, torch.float32 if vae_mode == VAE_FULL else vae_dtype))
