"""Doubles a video's frame rate with the model itself: every second frame is held, and those between are new."""

import torch
from torch import Tensor

from .extend import Footage
from .source import FREE, HELD, NONE, Source


def count_in_between(frames: int) -> int:
    """Return how many frames a video has after a new one is put between each two. frames: number of frames before."""
    return 2 * frames - 1


def hold_every_second(footage: Footage) -> Source:
    """Return the source of a video that has a new frame between each two frames of another."""
    count = count_in_between(len(footage.frames))
    order = tuple(NONE if frame % 2 else frame // 2 for frame in range(count))
    until = tuple(FREE if number == NONE else HELD for number in order)
    return Source(footage.frames, order, until, latents=footage.all_latents)


def put_originals(frames: Tensor, footage: Footage) -> Tensor:
    """Return frames [2 f - 1, h, w, 3] in which every second one is replaced by the original frame."""
    mixed = torch.clone(frames)
    mixed[::2] = footage.frames
    return mixed
