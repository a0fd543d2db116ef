"""The noise schedule that the model was trained with, and the grids of noise levels that samplers go through.

Solvers work in "variance exploding" (VE) coordinates, x = x0 + sigma * noise. The network and everything outside the
samplers use "variance preserving" (VP) ones, sqrt(acp) * x0 + sqrt(1 - acp) * noise, which is x / sqrt(1 + sigma^2).
"""

import math
from bisect import bisect_right
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor

from ..errors import RequestError

TRAIN_STEPS = 1000
BETA_START, BETA_END = 0.00085, 0.0120
KARRAS_RHO = 7.0
CONSISTENCY_STEPS = 50
"""Number of timesteps that T2V-Turbo was distilled on."""


def alphas_cumprod() -> Tensor:
    """Return the share of the signal's variance left at each training timestep: [1000], float64 ("linear_sd")."""
    betas = torch.linspace(BETA_START**0.5, BETA_END**0.5, TRAIN_STEPS, dtype=torch.float64) ** 2
    return (1 - betas).cumprod(0)


@cache
def sigmas() -> tuple[float, ...]:
    """Return the ratio of noise to signal at each training timestep: 1000 values from 0.029 up to 14.6."""
    acp = alphas_cumprod()
    return tuple(((1 - acp) / acp).sqrt().tolist())


class NoiseLevel(NamedTuple):
    """One point of a grid.

    sigma: the standard deviation of the noise in x = x0 + sigma * noise.
    timestep: the timestep that the network is given, 0..999; may be fractional.
    """

    sigma: float
    timestep: float


END = NoiseLevel(0.0, 0.0)
"""The level without noise. The network never runs at it."""


def level_at(timestep: float) -> NoiseLevel:
    """Return the noise level of a timestep in 0..999. Sigma is linear between training timesteps, as in diffusers."""
    low = min(int(timestep), TRAIN_STEPS - 2)
    share = timestep - low
    return NoiseLevel(sigmas()[low] * (1 - share) + sigmas()[low + 1] * share, float(timestep))


def timestep_of(sigma: float) -> float:
    """Return the fractional timestep of a sigma, interpolated by its logarithm (k-diffusion's rule).

    Sigmas outside the table get the first or the last timestep.
    """
    low = min(max(bisect_right(sigmas(), sigma) - 1, 0), TRAIN_STEPS - 2)
    below, above = sigmas()[low], sigmas()[low + 1]
    return low + min(max(math.log(sigma / below) / math.log(above / below), 0.0), 1.0)


def to_ve(latents: Tensor, level: NoiseLevel) -> Tensor:
    """Convert VP latents at a noise level, such as the standard normal noise at the start, to a solver's x."""
    return latents * math.hypot(1, level.sigma)


def to_vp(x: Tensor, level: NoiseLevel) -> Tensor:
    """Convert a solver's x at a noise level to VP latents, which the network takes and the autoencoder decodes."""
    return x / math.hypot(1, level.sigma)


def ddim_levels(steps: int) -> list[NoiseLevel]:
    """Return the original's DDIM grid (modelscope's ddim_sample_loop): every (1000 // steps)-th timestep, down to 1.

    It has ceil(1000 / stride) steps, which is more than asked for if `steps` does not divide 1000 (31 for 30), and ends
    at timestep 0's sigma, not at 0. If the stride divides 999 (3, 9, 27, 37 steps and many above 100), the original
    treats its state after the first step as one timestep noisier than it is; these noise levels do not.
    Raises RequestError for steps outside 1..1000.
    """
    stride = TRAIN_STEPS // _check_steps(steps)
    rising = [min(timestep, TRAIN_STEPS - 1) for timestep in range(1, TRAIN_STEPS + 1, stride)]
    return [level_at(timestep) for timestep in (*reversed(rising), 0)]


def ddim_gaussian_levels(steps: int) -> list[NoiseLevel]:
    """Return the grid of the 2023 extension's default, DDIM_Gaussian: DDIM's, cut off after `steps` steps.

    It is the same as DDIM's if `steps` divides 1000; else a little noise is left (30 steps stop at timestep 1), and
    above about 50 steps maybe a lot (91 steps stop at timestep 81, 501 at 499). Kept to reproduce old videos.
    """
    return ddim_levels(steps)[: steps + 1]


def linspace_levels(steps: int) -> list[NoiseLevel]:
    """Return diffusers' "linspace" grid for multistep solvers: whole timesteps from 999 to just above 0, then no noise.

    1000 steps would repeat a timestep, which makes those solvers divide by zero, so they become 999 steps.
    """
    # A product, as in numpy: k * 999 / steps would fall on the other side of .5 for 30 steps.
    stride = (TRAIN_STEPS - 1) / _check_steps(steps)
    timesteps = dict.fromkeys(round(k * stride) for k in range(steps, 0, -1))
    return [*map(level_at, timesteps), END]


def fractional_levels(steps: int) -> list[NoiseLevel]:
    """Return diffusers' and k-diffusion's Euler grid: evenly spaced fractional timesteps from 999 to 0, then no noise.

    The two differ in the interpolation of sigma: linear in diffusers and here, by its logarithm in k-diffusion (0.1 %
    at most, but 1.5 % below timestep 1). A single step starts from timestep 0 in diffusers, where almost no noise is
    left to remove; here, as in k-diffusion, it starts from 999.
    """
    last = TRAIN_STEPS - 1
    return [*(level_at(last * (1 - share)) for share in _ramp(steps)), END]


def karras_levels(steps: int) -> list[NoiseLevel]:
    """Return the grid of equation 5 of Karras et al. (2022) with rho 7 over the model's whole range, then no noise.

    Timesteps are rounded to integers, as in diffusers; sigmas are not rounded.
    """
    first, last = (sigma ** (1 / KARRAS_RHO) for sigma in (sigmas()[-1], sigmas()[0]))
    values = [(first + share * (last - first)) ** KARRAS_RHO for share in _ramp(steps)]
    return [*(NoiseLevel(sigma, float(round(timestep_of(sigma)))) for sigma in values), END]


def consistency_levels(steps: int) -> list[NoiseLevel]:
    """Return T2V-Turbo's grid: every (50 // steps)-th of the 50 timesteps 999, 979, ..., 19, then no noise.

    For 4 steps these are 999, 759, 519, 279. Raises RequestError for steps outside 1..50.
    """
    if _check_steps(steps) > CONSISTENCY_STEPS:
        raise RequestError(f"The sampler LCM takes at most {CONSISTENCY_STEPS} steps, not {steps}. 4 to 8 work well.")
    stride = TRAIN_STEPS // CONSISTENCY_STEPS
    falling = range(TRAIN_STEPS - 1, 0, -stride)[:: CONSISTENCY_STEPS // steps][:steps]
    return [*map(level_at, falling), END]


def _ramp(steps: int) -> list[float]:
    """Return evenly spaced numbers from 0 to 1, inclusive; for 1 step only 0."""
    intervals = max(_check_steps(steps) - 1, 1)
    return [k / intervals for k in range(steps)]


def _check_steps(steps: int) -> int:
    if not 1 <= steps <= TRAIN_STEPS:
        raise RequestError(f"Steps must be from 1 to {TRAIN_STEPS}, not {steps}.")
    return steps
