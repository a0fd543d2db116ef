"""Classifier-free guidance: how much the prompt steers the noise prediction."""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeVar

from torch import Tensor

Context = TypeVar("Context")
PredictNoise = Callable[[Tensor, Tensor], Tensor]
"""Predicts the noise in VP latents [b, ...] at timesteps [b]; returns the latents' shape."""


ROUNDING = 1e-6
"""Tolerance for shares of steps: people write them as decimals, which floats do not hold exactly."""


class Guidance(NamedTuple):
    """Parameters for combining the predictions for the prompt and the negative prompt.

    scale: 1 for no guidance.
    rescale: 0..1, how far to reduce the result's standard deviation to that of the prompted prediction.
    first, last: the timesteps between which there is guidance, first >= last; elsewhere only the prompted prediction is
    made (Kynkäänniemi et al., 2024).
    """

    scale: float
    rescale: float = 0.0
    first: float = math.inf
    last: float = -math.inf


def find_interval(timesteps: Sequence[float], begin: float, end: float) -> tuple[float, float]:
    """Find the timesteps between two shares of a grid's steps: `first` and `last` of Guidance.

    The range reaches halfway to the next timestep, because timesteps are rounded on their way to the network.

    Args:
        timesteps: the timesteps that the network is given, falling.
        begin: the start of guidance, as a share of the steps, 0..1.
        end: its end, as a share of the steps, 0..1. If it is not after `begin`, no timestep is in the range.
    """
    count = len(timesteps)
    first, end_at = (math.ceil(share * count - ROUNDING) for share in (begin, end))
    if first >= end_at:
        return -math.inf, math.inf
    return _midpoint(timesteps, first - 1), _midpoint(timesteps, end_at - 1)


def _midpoint(timesteps: Sequence[float], number: int) -> float:
    """Return the midpoint of a timestep and the next one: infinity before the first, -infinity after the last."""
    if number < 0:
        return math.inf
    return (timesteps[number] + timesteps[number + 1]) / 2 if number + 1 < len(timesteps) else -math.inf


def guide(
    network: Callable[[Tensor, Tensor, list[Context]], list[Tensor]], cond: Context, uncond: Context, guidance: Guidance
) -> PredictNoise:
    """Return the function that predicts noise with guidance: u + scale * (c - u) (Ho and Salimans, 2022).

    c and u are the noise under the prompt and under the negative prompt. At a scale of exactly 1 only c is computed.
    The result has the latents' dtype, whatever precision the network computes in.

    Args:
        network: predicts the noise in latents [b, ...] at timesteps [b] under each of the contexts.
        cond: the prompt, as the network takes it.
        uncond: the negative prompt, as the network takes it.
        guidance: how to combine the two.
    """

    def predict_noise(latents: Tensor, timesteps: Tensor) -> Tensor:
        alone = guidance.scale == 1 or not guidance.last <= float(timesteps[0]) <= guidance.first
        contexts = [cond] if alone else [cond, uncond]
        prompted, *unprompted = (noise.to(latents.dtype) for noise in network(latents, timesteps, contexts))
        if alone:
            return prompted
        noise = unprompted[0] + guidance.scale * (prompted - unprompted[0])
        return _rescale(noise, prompted, guidance.rescale) if guidance.rescale else noise

    return predict_noise


def _rescale(noise: Tensor, prompted: Tensor, share: float) -> Tensor:
    """Lower the contrast that large scales cause (Lin et al., 2023, equations 14 to 16)."""
    dims = tuple(range(1, noise.ndim))
    factor = prompted.std(dims, keepdim=True) / noise.std(dims, keepdim=True)
    return noise * (share * factor + (1 - share))
