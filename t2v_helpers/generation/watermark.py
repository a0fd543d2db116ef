"""The place of the watermark that the base model learnt from stock videos."""

import torch
from torch import Tensor

from ..video.pictures import soften

BAND = (0.1, 0.38, 0.9, 0.64)
"""Left, top, right and bottom of the band in the middle where it likes to write, as shares of a frame."""
SOFTNESS = 0.015
"""How far the band's edges are blurred, as a share of the height."""


def place_of_watermark(width: int, height: int) -> Tensor:
    """Return a mask [1, height, width] of 0..1 over the band."""
    left, top, right, bottom = BAND
    new = torch.zeros(height, width)
    new[round(top * height) : round(bottom * height), round(left * width) : round(right * width)] = 1
    return soften(new, round(SOFTNESS * height))[None]
