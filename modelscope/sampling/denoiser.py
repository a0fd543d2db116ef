"""Adapts the network, which predicts the noise in VP latents, to solvers, which need the x0 of VE latents."""

import torch
from torch import Tensor

from .guidance import PredictNoise
from .sampler import Denoise
from .schedules import NoiseLevel, to_vp


def make_denoiser(predict_noise: PredictNoise) -> Denoise:
    """Return the denoiser for a solver: x0 = x - sigma * noise.

    predict_noise: takes VP latents of x's shape and dtype, and float32 timesteps [b].
    """

    def denoise(x: Tensor, level: NoiseLevel) -> Tensor:
        timesteps = torch.full((len(x),), level.timestep, dtype=torch.float32, device=x.device)
        return x - level.sigma * predict_noise(to_vp(x, level), timesteps)

    return denoise
