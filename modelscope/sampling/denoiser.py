"""From the network's prediction (noise in VP latents) to the solvers' question (x0 behind VE latents)."""

import torch
from torch import Tensor

from .guidance import PredictNoise
from .registry import Denoise
from .schedules import Level, to_vp


def denoiser(predict_noise: PredictNoise) -> Denoise:
    """x0 = x - sigma * noise. The network gets VP latents of x's dtype and float32 timesteps [b]."""

    def denoise(x: Tensor, level: Level) -> Tensor:
        timesteps = torch.full((len(x),), level.timestep, dtype=torch.float32, device=x.device)
        return x - level.sigma * predict_noise(to_vp(x, level), timesteps)

    return denoise
