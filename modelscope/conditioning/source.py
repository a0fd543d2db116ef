"""The source of a video: frames that it is made from, which of them are held, and for how long."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

NONE = -1
"""In `Source.order`, a frame without a source."""
HELD, FREE = 0.0, 1.0
"""Values of `Source.until`: held to the end, and never held."""
NEW = 0.5
"""A pixel of a mask counts as new above this."""


@dataclass(frozen=True)
class Source:
    """Frames that a video is made from, and what it keeps of them.

    Args:
        frames: RGB bytes [n, height, width, 3], in the size of the video.
        order: For each frame of the video, the number of its source frame, or NONE.
        until: For each frame of the video, the share of the steps that are left, from 1 down to 0, until which it holds
            its source frame: HELD to the end, FREE never.
        starts: Whether sampling starts from the source with the request's strength. Else it starts from noise, and only
            what is held comes from the source.
        new: How much of each pixel is new, 0..1: [f, height, width], or [1, height, width] for all frames; elsewhere,
            held frames hold their source. None if frames are held as a whole.
        latents: The source frames' latents [1, c, n, h, w], if they are known already.
    """

    frames: Tensor
    order: tuple[int, ...]
    until: tuple[float, ...]
    starts: bool = False
    new: Tensor | None = None
    latents: Tensor | None = None


class SourceLatents(NamedTuple):
    """A source that is ready for sampling, on the device.

    latents: those of each frame's source, [1, c, f, h, w] float32; 0 where there is none.
    weight: how much of each pixel is held while its frame is, 0..1: [1, 1, f, h, w].
    until: as in `Source`, [1, 1, f, 1, 1].
    starts: as in `Source`.
    """

    latents: Tensor
    weight: Tensor
    until: Tensor
    starts: bool


def arrange_latents(source: Source, device: torch.device) -> SourceLatents:
    """Return the latents of a source, which are known, in the order of the video's frames, on a device."""
    assert source.latents is not None
    order = torch.tensor(source.order)
    latents = source.latents.float()[:, :, order.clamp_min(0)] * (order != NONE).view(1, 1, -1, 1, 1)
    until = torch.tensor(source.until).view(1, 1, -1, 1, 1)
    weight = torch.ones_like(latents[:, :1])
    if source.new is not None:
        weight = weight * (1 - shrink_mask(source.new, (latents.shape[3], latents.shape[4])))
    return SourceLatents(latents.to(device), weight.to(device), until.to(device), source.starts)


def shrink_mask(new: Tensor, size: tuple[int, int]) -> Tensor:
    """Return masks [n, height, width] in the latents' size [n, h, w], each pixel 0 or 1.

    A pixel is new if anything in it is: the source's own pixels are put back around that afterwards.
    """
    return (F.adaptive_max_pool2d(new.float(), size) > NEW).float()
