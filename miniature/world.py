"""The miniature's world: one coloured shape crossing a plain background, drawn by formula, with its caption."""

import itertools
from dataclasses import dataclass

import torch
from torch import Tensor

SIZE = 64
"""Height and width of a frame in pixels."""

COLOURS = {
    "red": (0.86, 0.12, 0.14),
    "green": (0.10, 0.62, 0.20),
    "blue": (0.13, 0.27, 0.88),
    "yellow": (0.97, 0.80, 0.06),
}
SHAPES = ("ball", "square", "triangle")
NEW_SHAPE = "bar"
"""The shape that the model does not know, and that its LoRA adds."""
DIRECTIONS = {"left": (-1.0, 0.0), "right": (1.0, 0.0), "up": (0.0, -1.0), "down": (0.0, 1.0)}
BACKGROUND = (0.92, 0.92, 0.90)


@dataclass(frozen=True)
class Label:
    """The content of a clip."""

    colour: str
    shape: str
    direction: str

    @property
    def caption(self) -> str:
        """Return the prompt that describes the clip."""
        return f"a {self.colour} {self.shape} moving {self.direction}"


LABELS = [Label(*names) for names in itertools.product(COLOURS, SHAPES, DIRECTIONS)]
HELD_OUT = {
    Label("red", "triangle", "up"),
    Label("green", "ball", "down"),
    Label("blue", "square", "left"),
    Label("yellow", "ball", "right"),
}
"""Combinations that no training clip or caption shows."""
TRAINED = [label for label in LABELS if label not in HELD_OUT]
NEW_LABELS = [Label(colour, NEW_SHAPE, direction) for colour in COLOURS for direction in DIRECTIONS]


def draw(label: Label, frames: int, generator: torch.Generator) -> Tensor:
    """Draw a clip of the label with random size and path: [frames, 3, SIZE, SIZE] in 0..1.

    The shape starts near the middle. If paths were symmetric around it, a direction would be an exclusive or of place
    and time, which a network without a clock takes very long to find; so, each direction has its side.
    """
    size, travel, aside, delay = torch.rand(4, generator=generator).tolist()
    radius = 8.5 + 3.0 * size
    along = torch.linspace(0, 1, frames) * (18.0 + 4.0 * travel) - 5.0 + 4.0 * delay
    across = (aside - 0.5) * 24.0
    dx, dy = DIRECTIONS[label.direction]
    x = SIZE / 2 + along * dx + across * abs(dy)
    y = SIZE / 2 + along * dy + across * abs(dx)
    coverage = _coverage(label.shape, x, y, radius)[:, None]
    colour = torch.tensor(COLOURS[label.colour])[None, :, None, None]
    return coverage * colour + (1 - coverage) * torch.tensor(BACKGROUND)[None, :, None, None]


def _coverage(shape: str, x: Tensor, y: Tensor, radius: float) -> Tensor:
    """Return how much of each pixel the shape covers: [frames, SIZE, SIZE], antialiased over one pixel."""
    grid = torch.arange(SIZE) + 0.5
    u = grid[None, None, :] - x[:, None, None]
    v = grid[None, :, None] - y[:, None, None]
    return (0.5 - SIGNED_DISTANCES[shape](u, v, radius)).clamp(0, 1)


def _ball(u: Tensor, v: Tensor, radius: float) -> Tensor:
    return torch.sqrt(u**2 + v**2) - radius


def _square(u: Tensor, v: Tensor, radius: float) -> Tensor:
    return torch.maximum(u.abs(), v.abs()) - radius * 0.9


def _triangle(u: Tensor, v: Tensor, radius: float) -> Tensor:
    """Return the distance from an upright triangle, as wide and high as the ball."""
    slope = 5**-0.5
    return torch.maximum(v - radius, (2 * u.abs() - v - radius) * slope).expand(len(u), SIZE, SIZE)


def _bar(u: Tensor, v: Tensor, radius: float) -> Tensor:
    """Return the distance from a lying bar, nearly three times as long as high."""
    return torch.maximum(u.abs() - 1.4 * radius, v.abs() - 0.5 * radius)


SIGNED_DISTANCES = {"ball": _ball, "square": _square, "triangle": _triangle, NEW_SHAPE: _bar}
"""Pixels from the outline, negative inside, for each shape."""
