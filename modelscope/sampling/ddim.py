"""DDIM: the original's sampler, and the 2023 extension's variant of it."""

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise

import torch
from torch import Tensor

from .sampler import Denoise, Noise, sampler
from .schedules import NoiseLevel, ddim_gaussian_levels, ddim_levels


@sampler("DDIM_Gaussian", grid=ddim_gaussian_levels, default_steps=30, uses_eta=True)
@sampler("DDIM", grid=ddim_levels, default_steps=50, uses_eta=True)
def ddim(denoise: Denoise, x: Tensor, levels: Sequence[NoiseLevel], noise: Noise, eta: float) -> Iterator[Tensor]:
    """Solve by equations 12 and 16 of Song et al. (2021), "Denoising Diffusion Implicit Models".

    Divided by sqrt(acp), they describe an Euler step to somewhat below the next sigma, and then noise up to that sigma.
    No noise is drawn if none is added.
    """
    for here, there in pairwise(levels):
        added = eta * there.sigma * math.sqrt(1 - (there.sigma / here.sigma) ** 2)
        kept = math.sqrt(there.sigma**2 - added**2)
        x = torch.lerp(denoise(x, here), x, kept / here.sigma)
        if added:
            x = x + added * noise()
        yield x
