"""DPM-Solver++."""

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise

import torch
from torch import Tensor

from .sampler import Denoise, Noise, sampler
from .schedules import NoiseLevel, karras_levels, linspace_levels


@sampler("DPM++ 2M Karras", grid=karras_levels)
@sampler("DPM++ 2M", grid=linspace_levels)
def dpmpp_2m(denoise: Denoise, x: Tensor, levels: Sequence[NoiseLevel], noise: Noise, eta: float) -> Iterator[Tensor]:
    """Solve by algorithm 2 of Lu et al. (2022), "DPM-Solver++": Euler steps towards x0 extrapolated by half a step.

    The first step and the one that removes the last noise do not extrapolate.
    """
    before: tuple[Tensor, float] | None = None
    for here, there in pairwise(levels):
        target = x0 = denoise(x, here)
        h = math.log(here.sigma / there.sigma) if there.sigma else math.inf
        if before and there.sigma:
            x0_before, h_before = before
            target = x0 + (x0 - x0_before) * (h / (2 * h_before))
        x = torch.lerp(target, x, there.sigma / here.sigma)
        before = x0, h
        yield x
