"""The network predicts the noise in VP latents; solvers ask for the x0 behind VE latents."""

import torch
from torch import Tensor

from .guidance import PredictNoise
from .sampler import Denoise
from .schedules import NoiseLevel, to_vp


def make_denoiser(predict_noise: PredictNoise) -> Denoise:
    """Make the function that solvers ask: x0 = x - sigma * noise.

    predict_noise: gets VP latents of x's shape and dtype, and float32 timesteps [b].
    """

    def denoise(x: Tensor, level: NoiseLevel) -> Tensor:
        timesteps = torch.full((len(x),), level.timestep, dtype=torch.float32, device=x.device)
        return x - level.sigma * predict_noise(to_vp(x, level), timesteps)

    return denoise
