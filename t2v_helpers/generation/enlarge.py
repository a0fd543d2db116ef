"""Enlarges a video for its second pass: by the latents, by Lanczos, or by an upscaler of the host."""

from collections.abc import Callable

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from ...modelscope.errors import RequestError
from ..host import Host, Upscale
from ..request import LANCZOS, LATENT

TRIAL = (16, 16)
"""Width and height of the picture with which an upscaler is tried before a run."""


def upscaler_names(host: Host) -> list[str]:
    """Return the names of all upscalers that a request may name."""
    return list(dict.fromkeys([LATENT, LANCZOS, *host.upscalers()]))


def find_upscaler(host: Host, name: str) -> Upscale:
    """Return the upscaler with a name, after a trial; LATENT, which works on latents, has none of its own.

    Raises:
        ModelError: The upscaler's file cannot be used.
        RequestError: There is no such upscaler, or it does not work.
    """
    if name in (LATENT, LANCZOS):
        return _lanczos
    found = host.upscalers()
    if name not in found:
        raise RequestError(f"There is no upscaler {name!r}. Choose one of these: {', '.join(upscaler_names(host))}.")
    trial = found[name](Image.new("RGB", TRIAL), 2 * TRIAL[0], 2 * TRIAL[1])
    if trial.size == TRIAL:
        # The WebUI's upscalers return the picture as it was if they cannot be loaded.
        raise RequestError(f"The upscaler {name!r} does not work here: the console says why. Choose another one.")
    return found[name]


def _lanczos(picture: Image.Image, width: int, height: int) -> Image.Image:
    return picture.resize((width, height), Image.Resampling.LANCZOS)


def enlarge(
    frames: Tensor, width: int, height: int, upscale: Upscale, on_frame: Callable[[int], None] = lambda _: None
) -> Tensor:
    """Return frames [f, h, w, 3], enlarged one by one: RGB bytes [f, height, width, 3].

    on_frame: called with the number of frames that are done; it may raise to interrupt.
    """
    enlarged = []
    for done, frame in enumerate(frames, 1):
        picture = upscale(Image.fromarray(frame.numpy()), width, height).convert("RGB")
        if picture.size != (width, height):
            picture = _lanczos(picture, width, height)
        enlarged.append(torch.from_numpy(np.array(picture)))
        on_frame(done)
    return torch.stack(enlarged)


def enlarge_latents(latents: Tensor, height: int, width: int) -> Tensor:
    """Return latents [1, c, f, h, w] with other sides, in latent pixels, as the WebUI's upscaler "Latent" does it."""
    by_frame = latents[0].transpose(0, 1).float()
    enlarged = F.interpolate(by_frame, (height, width), mode="bilinear", antialias=False)
    return enlarged.transpose(0, 1)[None].contiguous()
