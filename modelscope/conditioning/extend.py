"""Continues a video: its last frames are held as the first ones of a new clip, which is then joined on.

Everything drifts that continues itself: contrast and colours of each clip are brought back to those of the first one,
in the latents, so that the next clip continues from what is seen. What is held comes from latents where they are known,
since each way through the autoencoder costs details.
"""

from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from .source import FREE, HELD, NONE, Source

HELD_SHARE = 4
"""One of so many frames of a clip is held from the clip before."""
MOST_DRIFT = 0.1
"""Largest change of the mean brightness of a colour, or of its contrast, that is no drift."""


class Clip(NamedTuple):
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
    """Return how many frames of a clip of so many are held from the one before."""
    return max(1, frames // HELD_SHARE)


def continue_from(clip: Clip, frames: int, held: int) -> Source:
    """Return the source of a clip of so many frames, whose first ones are the last ones of another.

    Args:
        clip: The video so far.
        frames: Number of frames of the next clip.
        held: How many of them are those of the last one.
    """
    tail = clip.frames[-held:]
    count = len(tail)
    known = clip.latents
    latents = known[:, :, -count:] if known is not None and known.shape[2] >= count else None
    order = (*range(count), *[NONE] * (frames - count))
    return Source(tail, order, (*[HELD] * count, *[FREE] * (frames - count)), latents=latents)


def begin_with(source: Source, clip: Clip, held: int) -> Source:
    """Return a source that starts from its frames, but for the first ones: these are the last ones of a clip, held.

    source: its latents are known.
    held: how many frames the two have in common.
    """
    tail = continue_from(clip, held, held)
    assert source.latents is not None
    latents = source.latents.clone()
    if tail.latents is not None:
        latents[:, :, :held] = tail.latents.to(latents)
    frames = torch.cat([tail.frames, source.frames[held:]])
    return replace(source, frames=frames, latents=latents, until=(*[HELD] * held, *source.until[held:]))


def match_colours(latents: Tensor, model: Tensor) -> Tensor:
    """Return latents [1, c, f, h, w] with the mean and the spread that each channel has in another clip's latents."""
    dims = (0, 2, 3, 4)
    mean, spread = latents.mean(dims, keepdim=True), latents.std(dims, keepdim=True)
    return (latents - mean) / spread * model.std(dims, keepdim=True) + model.mean(dims, keepdim=True)


def join(clip: Clip, new: Clip, held: int) -> Clip:
    """Return both clips as one, faded into each other over the frames that they share.

    held: the number of shared frames, at the end of one and at the beginning of the other.
    """
    share = (torch.arange(held) + 1) / (held + 1)
    old, other = clip.frames[-held:].float(), new.frames[:held].float()
    faded = torch.lerp(old, other, share.view(-1, 1, 1, 1)).round().to(torch.uint8)
    return Clip(torch.cat([clip.frames[:-held], faded, new.frames[held:]]), new.latents)


def has_drifted(new: Tensor, first: Tensor) -> bool:
    """Return whether frames are of another brightness, colour or contrast than the first ones: RGB bytes [f, h, w, 3].

    Differences count in relation to the full range of a colour, so that dark videos do not drift by themselves.
    """
    dims = (0, 1, 2)
    mine, theirs = new.float() / 255, first.float() / 255
    gaps = (mine.mean(dims) - theirs.mean(dims)).abs(), (mine.std(dims) - theirs.std(dims)).abs()
    return max(float(gap.max()) for gap in gaps) > MOST_DRIFT
