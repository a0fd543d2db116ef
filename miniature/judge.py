"""Recognizes what a clip shows (colour, shape, direction), from its frames alone."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from .world import COLOURS, DIRECTIONS, NEW_SHAPE, SIGNED_DISTANCES, Label

MIN_AREA, MAX_AREA = 0.02, 0.30
"""A shape covers this much of the frame."""
MIN_CONTRAST = 0.15
"""Distance in RGB at which a pixel differs from the background."""
MIN_OVERLAP = 0.72
"""Intersection over union with the best-fitting shape below which it is none."""
MIN_TRAVEL = 0.18
"""Share of the frame that the shape has to cross for a movement."""
MIN_STRAIGHTNESS = 2.0
"""How often the travel along its direction has to exceed that across it."""
MIN_VISIBLE = 0.75
"""Share of the frames in which a shape has to be found."""
MAX_BACKGROUND_SPREAD = 0.12
"""Standard deviation of the border pixels of a plain background."""


@dataclass(frozen=True)
class Verdict:
    """The judge's findings; None for a part that it did not recognize."""

    colour: str | None
    shape: str | None
    direction: str | None

    def agrees(self, label: Label) -> dict[str, bool]:
        """Return which parts of the label are right."""
        return {name: getattr(self, name) == value for name, value in vars(label).items()}


@dataclass(frozen=True)
class Blob:
    """The shape found in one frame: mask [h, w], mean colour [3], centre (x, y) in pixels."""

    mask: Tensor
    colour: Tensor
    centre: tuple[float, float]


def judge(clip: Tensor) -> Verdict:
    """Judge frames [f, h, w, 3] of bytes."""
    blobs = [find_blob(frame.float() / 255) for frame in clip]
    found = [(i, blob) for i, blob in enumerate(blobs) if blob]
    if len(found) < MIN_VISIBLE * len(clip):
        return Verdict(None, None, None)
    votes = [name_shape(blob) for _, blob in found]
    return Verdict(
        colour=name_colour(torch.stack([blob.colour for _, blob in found]).mean(0)),
        shape=_majority(votes),
        direction=name_direction([(i, *blob.centre) for i, blob in found], clip.shape[1]),
    )


def find_blob(frame: Tensor) -> Blob | None:
    """Return the one thing that differs from a plain background, in a frame [h, w, 3] of 0..1."""
    border = torch.cat(
        [frame[:2].flatten(0, 1), frame[-2:].flatten(0, 1), frame[:, :2].flatten(0, 1), frame[:, -2:].flatten(0, 1)]
    )
    background = border.median(0).values
    if float((border - background).abs().mean()) > MAX_BACKGROUND_SPREAD:
        return None
    distance = (frame - background).norm(dim=-1)
    contrast = float(distance.flatten().kthvalue(int(distance.numel() * (1 - MIN_AREA))).values)
    if contrast < MIN_CONTRAST:
        return None
    mask = distance > contrast / 2
    area = float(mask.float().mean())
    if not MIN_AREA < area < MAX_AREA:
        return None
    ys, xs = mask.nonzero(as_tuple=True)
    # The mean of the inner pixels: at the rim the colour is a mixture.
    core = distance > 0.8 * contrast
    return Blob(mask, frame[core].mean(0), (float(xs.float().mean()), float(ys.float().mean())))


def name_colour(colour: Tensor) -> str | None:
    """Return the world's colour nearest in hue and saturation, if any is near."""
    hue, saturation = _hue_saturation(colour)
    if saturation < 0.25:
        return None
    gaps = {name: _hue_gap(hue, _hue_saturation(torch.tensor(rgb))[0]) for name, rgb in COLOURS.items()}
    best = min(gaps, key=lambda name: gaps[name])
    return best if gaps[best] < math.radians(25) else None


def _hue_saturation(colour: Tensor) -> tuple[float, float]:
    r, g, b = colour.tolist()
    high, low = max(r, g, b), min(r, g, b)
    hue = math.atan2(math.sqrt(3) * (g - b), 2 * r - g - b)
    return hue, (high - low) / max(high, 1e-6)


def _hue_gap(a: float, b: float) -> float:
    return abs(math.remainder(a - b, math.tau))


def name_shape(blob: Blob) -> str | None:
    """Return the shape whose outline of the same area and place covers the mask best."""
    overlaps = {name: _best_overlap(name, blob.mask) for name in SIGNED_DISTANCES}
    best = max(overlaps, key=lambda name: overlaps[name])
    return best if overlaps[best] > MIN_OVERLAP else None


def _best_overlap(shape: str, mask: Tensor) -> float:
    """Return the best intersection over union with a shape fitted to the mask's bounding box, or close to it."""
    ys, xs = mask.nonzero(as_tuple=True)
    left, right, top, bottom = (float(v) for v in (xs.min(), xs.max() + 1, ys.min(), ys.max() + 1))
    area = float(mask.sum())
    radius = math.sqrt(area / _UNIT_AREA[shape])
    shifts = torch.tensor([-1.5, 0.0, 1.5])
    x = (left + right) / 2 + shifts.repeat(3)
    y = (top + bottom) / 2 + shifts.repeat_interleave(3)
    height, width = mask.shape
    u = torch.arange(width)[None, None] + 0.5 - x[:, None, None]
    v = torch.arange(height)[None, :, None] + 0.5 - y[:, None, None]
    drawn = SIGNED_DISTANCES[shape](u.expand(-1, height, -1), v.expand(-1, -1, width), radius) < 0
    union = (drawn | mask).sum((1, 2))
    return float(((drawn & mask).sum((1, 2)) / union).max())


_UNIT_AREA = {"ball": math.pi, "square": (2 * 0.9) ** 2, "triangle": 2.0, NEW_SHAPE: 2.8}
"""Area of each shape of radius 1."""


def name_direction(track: list[tuple[int, float, float]], size: int) -> str | None:
    """Return where a track of (frame, x, y) goes, by the slope of a line through it."""
    points = torch.tensor(track, dtype=torch.float64)
    time = points[:, 0] - points[:, 0].mean()
    if float(time.abs().sum()) == 0:
        return None
    slope = (time[:, None] * points[:, 1:]).sum(0) / time.square().sum()
    travel = slope * (points[-1, 0] - points[0, 0]) / size
    for name, (dx, dy) in DIRECTIONS.items():
        along = float(travel[0] * dx + travel[1] * dy)
        across = float((travel[0] * dy + travel[1] * dx).abs())
        if along > MIN_TRAVEL and along > MIN_STRAIGHTNESS * across:
            return name
    return None


def _majority(votes: list[str | None]) -> str | None:
    best = max(set(votes), key=votes.count)
    return best if votes.count(best) > len(votes) / 2 else None
