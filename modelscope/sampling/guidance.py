"""Classifier-free guidance: how much the prompt steers the noise prediction."""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeVar

from torch import Tensor

Context = TypeVar("Context")
PredictNoise = Callable[[Tensor, Tensor], Tensor]
"""VP latents [b, ...] and timesteps [b] to the noise in them."""


ROUNDING = 1e-6
"""Shares of steps are written in decimals."""


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
    """The range of a grid's timesteps within two shares of its steps, of nothing if none is.

    It ends halfway to the next timestep: the network hears them rounded.
    """
    count = len(timesteps)
    first, end_at = (math.ceil(share * count - ROUNDING) for share in (begin, end))
    if first >= end_at:
        return -math.inf, math.inf
    return _between(timesteps, first - 1), _between(timesteps, end_at - 1)


def _between(timesteps: Sequence[float], number: int) -> float:
    """Halfway from one timestep to the next; before the first and after the last everything."""
    if number < 0:
        return math.inf
    return (timesteps[number] + timesteps[number + 1]) / 2 if number + 1 < len(timesteps) else -math.inf


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
