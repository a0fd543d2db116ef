"""Continues a video: its last frames are held as the first ones of a new clip, which is then joined on.

A video that continues itself drifts. So the contrast and the colours of each clip are matched to those of the first
one. This is done in the latents, because the next clip continues from them. Shared frames are taken from latents where
these are known, because every pass through the autoencoder loses details.
"""

from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from .source import FREE, HELD, NONE, Source

HELD_SHARE = 4
"""A clip shares a quarter of its frames with the clip before it."""
MOST_DRIFT = 0.1
"""Largest change of the mean brightness of a colour, or of its contrast, that is no drift."""
LEAST_SPREAD = 1e-6
"""Spread of latents that are all the same, which cannot be widened."""


class Footage(NamedTuple):
    """A finished video.

    frames: RGB bytes [f, height, width, 3].
    latents: those of its last frames, [1, c, n, h, w], if they are known.
    """

    frames: Tensor
    latents: Tensor | None = None

    @property
    def all_latents(self) -> Tensor | None:
        """The latents of all its frames, if they are known."""
        return self.latents if self.latents is not None and self.latents.shape[2] == len(self.frames) else None


def count_held(frames: int) -> int:
    """Return how many frames a clip shares with the clip before it. frames: number of frames of the clip."""
    return max(1, frames // HELD_SHARE)


def continue_from(footage: Footage, frames: int, held: int) -> Source:
    """Return the source of a clip that begins with the last frames of a video.

    Args:
        footage: The video so far.
        frames: Number of frames of the next clip.
        held: Number of frames that it shares with the video.
    """
    tail, known = footage.frames[-held:], footage.latents
    latents = known[:, :, -held:] if known is not None and known.shape[2] >= held else None
    order = (*range(held), *[NONE] * (frames - held))
    return Source(tail, order, (*[HELD] * held, *[FREE] * (frames - held)), latents=latents)


def begin_with(source: Source, footage: Footage, held: int) -> Source:
    """Return a source whose first frames are replaced by the last frames of a video, which are held as a whole.

    Args:
        source: The source of the next clip, whose latents are known.
        footage: The video so far.
        held: Number of frames that it shares with the video.
    """
    tail = continue_from(footage, held, held)
    assert source.latents is not None
    latents, new = source.latents.clone(), source.new
    if tail.latents is not None:
        latents[:, :, :held] = tail.latents.to(latents)
    if new is not None:
        new = new.expand(len(source.order), -1, -1).clone()
        new[:held] = 0
    frames = torch.cat([tail.frames, source.frames[held:]])
    return replace(source, frames=frames, latents=latents, new=new, until=(*[HELD] * held, *source.until[held:]))


def match_colours(latents: Tensor, model: Tensor) -> Tensor:
    """Return latents [1, c, f, h, w] with the mean and the spread that each channel has in another clip's latents."""
    dims = (0, 2, 3, 4)
    mean, spread = latents.mean(dims, keepdim=True), latents.std(dims, keepdim=True).clamp_min(LEAST_SPREAD)
    return (latents - mean) / spread * model.std(dims, keepdim=True) + model.mean(dims, keepdim=True)


def join(footage: Footage, new: Footage, held: int) -> Footage:
    """Return both as one, faded into each other over the frames that they share.

    held: the number of shared frames, at the end of one and at the beginning of the other.
    """
    share = (torch.arange(held) + 1) / (held + 1)
    old, other = footage.frames[-held:].float(), new.frames[:held].float()
    faded = torch.lerp(old, other, share.view(-1, 1, 1, 1)).round().to(torch.uint8)
    return Footage(torch.cat([footage.frames[:-held], faded, new.frames[held:]]), new.latents)


def has_drifted(new: Tensor, first: Tensor) -> bool:
    """Return whether frames are of another brightness, colour or contrast than the first ones: RGB bytes [f, h, w, 3].

    Differences count in relation to the full range of a colour, so that dark videos do not drift by themselves.
    """
    dims = (0, 1, 2)
    mine, theirs = new.float() / 255, first.float() / 255
    gaps = (mine.mean(dims) - theirs.mean(dims)).abs(), (mine.std(dims) - theirs.std(dims)).abs()
    return max(float(gap.max()) for gap in gaps) > MOST_DRIFT
