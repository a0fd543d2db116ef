"""Conversion of frames [(b f), c, h, w] to clips [b, c, f, (h w)], for layers that mix frames, and back."""

from einops import rearrange
from torch import Tensor


def to_clip(x: Tensor, frames: int) -> Tensor:
    """Return a view of frames [(b f), c, h, w] as clips [b, c, f, (h w)]. frames: f."""
    return rearrange(x, "(b f) c h w -> b c f (h w)", f=frames)


def to_frames(clip: Tensor, like: Tensor) -> Tensor:
    """Return clips [b, c, f, (h w)] as frames [(b f), c, h, w]. like: frames of this shape and order in memory."""
    frames = clip.transpose(1, 2)
    if not like.is_contiguous():
        return frames.reshape(like.shape)
    # Not `reshape` here: at levels of one pixel it returns other strides, with which later layers round differently.
    return frames.flatten().view(like.shape)
