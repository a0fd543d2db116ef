"""Pictures as frames: which frames hold which picture, and until when.

A frame that is held alone is followed by a jump: the rest of the video ignores it. So every frame begins as the picture
that is nearest to it, and is let go the sooner, the further it is from that: the ramp of the 2023 extension.
"""

from torch import Tensor

from .source import FREE, HELD, Source
from .weights import read_weights

RAMP = '0:(t/max_i_f), "max_i_f":(1)'
"""The 2023 extension's default: the share of the steps until which a frame is held falls with its distance."""


def hold_images(pictures: Tensor, places: tuple[int, ...], frames: int, weights: str, reach: int, seed: int) -> Source:
    """Return pictures as a source that holds each of them at its frame, and lets the frames around it go in time.

    Args:
        pictures: RGB bytes [n, height, width, 3].
        places: The frame of each picture, rising.
        frames: Number of frames of the video.
        weights: The share of the steps that are left when a frame is let go, by its distance from a picture.
        reach: Number of frames that a picture reaches, itself included.
        seed: The video's seed, which weights may name.

    Raises:
        RequestError: The weights cannot be read.
    """
    order = tuple(min(range(len(places)), key=lambda one: abs(places[one] - frame)) for frame in range(frames))
    reaches = [min(reach, _room(places, nearest, frame, frames)) for frame, nearest in enumerate(order)]
    ramps = {near: read_weights(weights, frames, near, seed) for near in set(reaches)}
    until = [
        _until(ramps[near], near, abs(places[nearest] - frame))
        for frame, (nearest, near) in enumerate(zip(order, reaches, strict=True))
    ]
    return Source(pictures, order, tuple(until))


def _until(ramp: list[float], reach: int, distance: int) -> float:
    if distance >= reach:
        return FREE
    # A ramp over a single frame would begin at its end.
    return HELD if reach == 1 else ramp[distance]


def _room(places: tuple[int, ...], nearest: int, frame: int, frames: int) -> int:
    """Return over how many frames a picture is let go on the side of a frame: half of the way to the next picture."""
    after = frame > places[nearest]
    other = nearest + (1 if after else -1)
    if 0 <= other < len(places):
        return abs(places[other] - places[nearest]) // 2 + 1
    return frames
