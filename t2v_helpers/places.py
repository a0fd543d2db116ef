"""Chooses a run's device and precision from the request, the settings, and the host's own choice."""

import os
from typing import NamedTuple

import torch

from ..modelscope.device import Place, supports
from ..modelscope.errors import RequestError
from .host import Host
from .settings import AUTOMATIC, PRECISION, PRECISIONS, VAE, VAE_CPU, VAE_FULL

VARIABLE = "TEXT2VIDEO_PRECISION"
"""The environment variable for a precision. The request's precision comes before it, the setting's after it."""


class Places(NamedTuple):
    """Devices and precisions of a run; the autoencoder's may differ."""

    model: Place
    vae: Place


def places(host: Host, precision: str = AUTOMATIC) -> Places:
    """Return the devices and precisions for a run.

    Args:
        host: Provides the device, and the settings for the precision and the autoencoder.
        precision: The precision that the request asks for.

    Raises:
        RequestError: The host's device cannot be used, or the variable names no precision.
    """
    device, dtype, vae_dtype = host.devices()
    asked = (getattr(torch, name) for name in asked_precisions(host, precision))
    model = Place(device, next((one for one in asked if supports(device, one)), dtype))
    mode = host.setting(VAE)
    if mode == VAE_CPU:
        return Places(model, Place(torch.device("cpu"), torch.float32))
    return Places(model, Place(device, torch.float32 if mode == VAE_FULL else vae_dtype))


def asked_precisions(host: Host, precision: str) -> list[str]:
    """Return the precisions that request, variable and setting ask for, in this order. Raises RequestError."""
    variable = os.environ.get(VARIABLE, AUTOMATIC)
    if variable not in PRECISIONS:
        raise RequestError(f"{VARIABLE} is {variable!r}. Set it to one of {', '.join(PRECISIONS)}, or remove it.")
    return [name for name in (precision, variable, host.setting(PRECISION)) if name != AUTOMATIC]
