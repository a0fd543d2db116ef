"""Classifier-free guidance: how much the prompt steers the noise prediction."""

from collections.abc import Callable
from typing import TypeVar

from torch import Tensor

Context = TypeVar("Context")
PredictNoise = Callable[[Tensor, Tensor], Tensor]
"""VP latents [b, ...] and timesteps [b] to the noise in them."""


def guided(
    network: Callable[[Tensor, Tensor, Context], Tensor], cond: Context, uncond: Context, scale: float
) -> PredictNoise:
    """u + scale * (c - u) (Ho and Salimans 2022), c and u being the network's noise for the two contexts.

    The passes run one after the other, c first as in the original; at a scale of exactly 1 only c runs.
    The result has the latents' dtype, whatever the network computes in.
    """

    def predict_noise(latents: Tensor, timesteps: Tensor) -> Tensor:
        prompted = network(latents, timesteps, cond).to(latents.dtype)
        if scale == 1:
            return prompted
        unprompted = network(latents, timesteps, uncond).to(latents.dtype)
        return unprompted + scale * (prompted - unprompted)

    return predict_noise
