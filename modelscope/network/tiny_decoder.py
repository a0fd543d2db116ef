"""TAESD's decoder: turns Stable Diffusion's latents into frames in a fraction of the autoencoder's time, and coarser.

Architecture by Ollin Boer Bohan (https://github.com/madebyollin/taesd), MIT licence.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .slices import WHOLE, ChunkBudget

WIDTH, LEVELS, BLOCKS = 64, 3, 3
TINY_SCALE = 2**LEVELS
"""Pixels of a frame per pixel of its latents, along each side."""
TINY_VALUES = 4 * WIDTH
"""Number of values that the decoder holds per pixel of a frame."""
LATENT_CHANNELS, LARGEST = 4, 3
"""Latents beyond the second number are squeezed below it, softly."""


class TinyDecoder(nn.Module):
    """A decoder for latents [n, 4, h, w] as the UNet works on them."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(LATENT_CHANNELS, WIDTH, 3, padding=1), nn.ReLU()]
        for _ in range(LEVELS):
            layers += [_Block() for _ in range(BLOCKS)]
            layers += [nn.Upsample(scale_factor=2), nn.Conv2d(WIDTH, WIDTH, 3, padding=1, bias=False)]
        self.layers = nn.Sequential(*layers, _Block(), nn.Conv2d(WIDTH, 3, 3, padding=1))

    def decoding_part(self) -> nn.Module:
        """Return the module whose weights decoding needs."""
        return self

    def latents_to_frames(self, latents: Tensor, budget: ChunkBudget = WHOLE) -> Tensor:  # noqa: ARG002 - the signature of Autoencoder's
        """Turn the UNet's latents [n, 4, h, w] into frames [n, 3, 8 h, 8 w] in 0..1. No slices: it holds little."""
        return self.layers(torch.tanh(latents / LARGEST) * LARGEST).clamp(0.0, 1.0)


class _Block(nn.Module):
    """Three convolutions with a residual connection."""

    def __init__(self) -> None:
        super().__init__()
        layers = [nn.Conv2d(WIDTH, WIDTH, 3, padding=1) for _ in range(3)]
        self.conv = nn.Sequential(layers[0], nn.ReLU(), layers[1], nn.ReLU(), layers[2])

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.conv(x) + x)
