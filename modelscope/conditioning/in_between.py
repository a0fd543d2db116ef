"""Doubles a video's frame rate with the model itself: every second frame is held, and those between are new."""

import torch
from torch import Tensor

from .extend import Footage
from .source import FREE, HELD, NONE, Source


def count_in_between(frames: int) -> int:
    """Return how many frames a video has that has one more between each two of so many."""
    return 2 * frames - 1


def hold_every_second(footage: Footage) -> Source:
    """Return a source for a video with a new frame between each two of a video's."""
    count = count_in_between(len(footage.frames))
    order = tuple(NONE if frame % 2 else frame // 2 for frame in range(count))
    until = tuple(FREE if number == NONE else HELD for number in order)
    return Source(footage.frames, order, until, latents=footage.all_latents)


def put_originals(frames: Tensor, footage: Footage) -> Tensor:
    """Return frames [2 f - 1, h, w, 3] with a video's own bytes as every second one."""
    mixed = torch.clone(frames)
    mixed[::2] = footage.frames
    return mixed
