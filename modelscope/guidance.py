"""Classifier-free guidance: how much the prompt steers the noise prediction."""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeVar

from torch import Tensor

Context = TypeVar("Context")
PredictNoise = Callable[[Tensor, Tensor], Tensor]
"""VP latents [b, ...] and timesteps [b] to the noise in them."""


class Guidance(NamedTuple):
    """How to combine the predictions for two contexts (Kynkäänniemi et al., 2024, for the interval).

    rescale: 0..1, how far the result's spread goes back to that of the prompted prediction.
    first, last: the timesteps between which there is guidance; elsewhere only the prompted prediction is made.
    """

    scale: float
    rescale: float = 0.0
    first: float = math.inf
    last: float = -math.inf


def interval(timesteps: Sequence[float], begin: float, end: float) -> tuple[float, float]:
    """The first and the last of a grid's timesteps within two shares of its steps; a range of nothing if none is."""
    count = len(timesteps)
    inside = [timestep for number, timestep in enumerate(timesteps) if begin * count <= number < end * count]
    return (inside[0], inside[-1]) if inside else (-math.inf, math.inf)


def guided(
    network: Callable[[Tensor, Tensor, list[Context]], list[Tensor]], cond: Context, uncond: Context, guidance: Guidance
) -> PredictNoise:
    """u + scale * (c - u) (Ho and Salimans, 2022), c and u being the network's noise for the two contexts.

    At a scale of exactly 1 only c is asked for. The result has the latents' dtype, whatever the network computes in.
    """

    def predict_noise(latents: Tensor, timesteps: Tensor) -> Tensor:
        alone = guidance.scale == 1 or not guidance.last <= float(timesteps[0]) <= guidance.first
        contexts = [cond] if alone else [cond, uncond]
        prompted, *unprompted = (noise.to(latents.dtype) for noise in network(latents, timesteps, contexts))
        if alone:
            return prompted
        noise = unprompted[0] + guidance.scale * (prompted - unprompted[0])
        return _rescaled(noise, prompted, guidance.rescale) if guidance.rescale else noise

    return predict_noise


def _rescaled(noise: Tensor, prompted: Tensor, share: float) -> Tensor:
    """Against overexposure at large scales (Lin et al., 2023, equations 14 to 16)."""
    dims = tuple(range(1, noise.ndim))
    factor = prompted.std(dims, keepdim=True) / noise.std(dims, keepdim=True)
    return noise * (share * factor + (1 - share))
