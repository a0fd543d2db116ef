"""Latent consistency sampling, for networks that were distilled to need only a few steps."""

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise

from torch import Tensor

from .sampler import Denoise, Noise, sampler
from .schedules import NoiseLevel, consistency_levels, to_vp

SIGMA_DATA = 0.5
TIMESTEP_SCALE = 10
"""SIGMA_DATA and TIMESTEP_SCALE have the values used in the distillation of T2V-Turbo."""


@sampler("LCM", grid=consistency_levels, default_steps=4)
def lcm(denoise: Denoise, x: Tensor, levels: Sequence[NoiseLevel], noise: Noise, eta: float) -> Iterator[Tensor]:
    """Solve by multistep consistency sampling (Song et al., 2023, algorithm 1; Luo et al., 2023), as in T2V-Turbo.

    Each step goes all the way to x0, and new noise then leads back to the next noise level.
    """
    for here, there in pairwise(levels):
        scaled = here.timestep * TIMESTEP_SCALE
        skip = SIGMA_DATA**2 / (scaled**2 + SIGMA_DATA**2)
        out = scaled / math.sqrt(scaled**2 + SIGMA_DATA**2)
        x = out * denoise(x, here) + skip * to_vp(x, here)
        if there.sigma:
            x = x + there.sigma * noise()
        yield x
