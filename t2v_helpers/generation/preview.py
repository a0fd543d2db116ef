"""Turns latents into a small picture, without the autoencoder."""

import math

import torch
from PIL import Image
from torch import Tensor

from ..settings import CONTACT_SHEET

# Least-squares fit of RGB (-1..1) to latents of Stable Diffusion 1.x's autoencoder, which this model shares, as
# published by the authors of several previews.
LATENT_RGB = ((0.298, 0.207, 0.208), (0.187, 0.286, 0.173), (-0.158, 0.189, 0.264), (-0.184, -0.271, -0.473))
MOST_FRAMES = 12
GREY = 127
SMALLEST_SIDE = 256
"""Minimum length in pixels of a preview's shorter side: browsers would blur a smaller one."""


def preview_image(latents: Tensor, shows: str) -> Image.Image:
    """Return latents [1, 4, f, h, w] as an RGB image: a contact sheet of at most 12 frames, or the middle frame."""
    clip = latents[0].float().cpu()
    count = clip.shape[1]
    sheet = shows == CONTACT_SHEET
    chosen = torch.linspace(0, count - 1, min(count, MOST_FRAMES)).round().long() if sheet else [count // 2]
    colours = torch.einsum("cfhw,cr->fhwr", clip[:, chosen], torch.tensor(LATENT_RGB))
    pixels = ((colours + 1) * 127.5).nan_to_num().clamp(0, 255).to(torch.uint8)
    image = Image.fromarray(_tiled(pixels).numpy())
    scale = max(1, math.ceil(SMALLEST_SIDE / min(image.size)))
    return image.resize((image.width * scale, image.height * scale), Image.Resampling.BILINEAR)


def _tiled(frames: Tensor) -> Tensor:
    """Arrange frames [f, h, w, 3] row by row in a roughly square grid."""
    count, height, width, _ = frames.shape
    columns = math.ceil(math.sqrt(count))
    rows = math.ceil(count / columns)
    grid = frames.new_full((rows * columns, height, width, 3), GREY)
    grid[:count] = frames
    return grid.view(rows, columns, height, width, 3).transpose(1, 2).reshape(rows * height, columns * width, 3)
