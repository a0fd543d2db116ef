"""Reads pictures as frames of a video, and as masks."""

import warnings
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageFilter, ImageOps
from torch import Tensor

from ...modelscope.errors import RequestError
from .source import CROP, FIT, MOST_PIXELS, Shape, check_exists

_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")
"""Formats that are read. Pillow knows dozens more, some of which start other programs."""
WHITE, BLACK = (255, 255, 255, 255), (0, 0, 0, 255)
SIXTEEN_BITS = 65_535


def read_picture(path: Path, shape: Shape) -> Tensor:
    """Return a picture as a frame: RGB bytes [height, width, 3]. Raises RequestError if it cannot be read.

    A camera's rotation is applied, and transparent parts become white, as in the WebUI.
    """
    flat = _flatten(_open(path), WHITE).convert("RGB")
    return torch.from_numpy(np.array(_resize(flat, shape)))


def read_mask(path: Path, shape: Shape, softness: int) -> Tensor:
    """Return a mask as numbers in 0..1, [height, width], where white is 1. Raises RequestError.

    softness: how far its edges are blurred, in pixels.
    """
    flat = _flatten(_open(path), BLACK).convert("L")
    return soften(torch.from_numpy(np.array(_resize(flat, shape))).float() / 255, softness)


def _flatten(picture: Image.Image, ground: tuple[int, int, int, int]) -> Image.Image:
    """Return a picture as its camera meant it, with a colour behind its transparent parts."""
    upright = ImageOps.exif_transpose(picture)
    if upright.mode.startswith("I"):
        # Pillow would cut 16 bits off instead of scaling them.
        upright = Image.fromarray((np.array(upright, dtype=np.float64) / SIXTEEN_BITS * 255).astype(np.uint8))
    upright = upright.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", upright.size, ground), upright)


def soften(mask: Tensor, softness: int) -> Tensor:
    """Return a mask [height, width] of 0..1 with its edges blurred over so many pixels."""
    if not softness:
        return mask
    picture = Image.fromarray((mask * 255).round().to(torch.uint8).numpy())
    return torch.from_numpy(np.array(picture.filter(ImageFilter.GaussianBlur(softness)))).float() / 255


def _open(path: Path) -> Image.Image:
    check_exists(path)
    try:
        with warnings.catch_warnings():
            # Checked below.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            picture = Image.open(path, formats=_FORMATS)
        is_too_large = picture.width * picture.height > MOST_PIXELS
        if not is_too_large:
            picture.load()
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise RequestError(f"The picture {path.name!r} cannot be read. Choose a PNG, JPEG or WebP file.") from error
    if is_too_large:
        raise RequestError(f"The picture {path.name!r} is too large: {picture.width} x {picture.height} pixels.")
    return picture


def _resize(picture: Image.Image, shape: Shape) -> Image.Image:
    size = shape.width, shape.height
    if shape.mode == CROP:
        return ImageOps.fit(picture, size, Image.Resampling.LANCZOS)
    if shape.mode == FIT:
        fitted = picture.resize(fit_inside(picture.size, size), Image.Resampling.LANCZOS)
        ground = Image.new(picture.mode, size)
        ground.paste(fitted, ((shape.width - fitted.width) // 2, (shape.height - fitted.height) // 2))
        return ground
    return picture.resize(size, Image.Resampling.LANCZOS)


def fit_inside(size: tuple[int, int], outer: tuple[int, int]) -> tuple[int, int]:
    """Return the largest width and height of the same shape that fit into others."""
    scale = min(outer[0] / size[0], outer[1] / size[1])
    width, height = (max(1, round(side * scale)) for side in size)
    return min(width, outer[0]), min(height, outer[1])


def measure_picture(path: Path) -> tuple[int, int]:
    """Return the width and height of a picture, upright. Raises RequestError if it cannot be read."""
    return ImageOps.exif_transpose(_open(path)).size
