"""Euler's method and its ancestral variant, on k-diffusion's grid."""

from collections.abc import Iterator, Sequence

from torch import Tensor

from .ddim import ddim
from .sampler import Denoise, Noise, sampler
from .schedules import NoiseLevel, fractional_levels


@sampler("Euler", grid=fractional_levels)
def euler(denoise: Denoise, x: Tensor, levels: Sequence[NoiseLevel], noise: Noise, eta: float) -> Iterator[Tensor]:
    """Solve by algorithm 2 of Karras et al. (2022), without churn and second order: here the same as DDIM at eta 0."""
    return ddim(denoise, x, levels, noise, 0.0)


@sampler("Euler a", grid=fractional_levels)
def euler_ancestral(
    denoise: Denoise, x: Tensor, levels: Sequence[NoiseLevel], noise: Noise, eta: float
) -> Iterator[Tensor]:
    """Solve by k-diffusion's ancestral sampling, after Song et al. (2021), "Score-Based Generative Modeling".

    In these coordinates it is the same as DDIM at eta 1.

    The eta of the request is DDIM's and is ignored, so that its default of 0 does not turn this into Euler.
    """
    return ddim(denoise, x, levels, noise, 1.0)
