"""Puts a source's own pixels back around what is new."""

import torch
from torch import Tensor

from .source import HELD, Source


def paste_source(frames: Tensor, source: Source) -> Tensor:
    """Return finished frames with the source's bytes where its mask is 0, and both mixed where it is soft.

    frames: RGB bytes [f, height, width, 3]. Frames that are held as a whole, or not to the end, stay as they are.
    """
    if source.new is None:
        return frames
    masks = source.new[..., None].float().expand(len(frames), -1, -1, -1)
    pasted = []
    for frame, number, until, new in zip(frames, source.order, source.until, masks, strict=True):
        mixed = torch.lerp(source.frames[number].float(), frame.float(), new).round().to(torch.uint8)
        pasted.append(mixed if until == HELD else frame)
    return torch.stack(pasted)
