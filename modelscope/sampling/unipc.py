"""UniPC, the unified predictor-corrector."""

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from .sampler import Denoise, Noise, sampler
from .schedules import NoiseLevel, linspace_levels


def bh1(h: float) -> float:
    """Compute the paper's B1(h) for x0 predictions; h is the step in log(1 / sigma)."""
    return -h


def bh2(h: float) -> float:
    """Compute the paper's B2(h) for x0 predictions; h is the step in log(1 / sigma)."""
    return math.expm1(-h)


class Variant(NamedTuple):
    """A variant of UniPC: how many predictions a step uses, and the paper's free function B(h)."""

    order: int
    b: Callable[[float], float]


DIFFUSERS = Variant(2, bh2)
"""The default of diffusers."""


class Prediction(NamedTuple):
    """The model's guess at x0, and the sigma at which it was made."""

    sigma: float
    x0: Tensor


@sampler("UniPC", grid=linspace_levels)
def unipc(
    denoise: Denoise, x: Tensor, levels: Sequence[NoiseLevel], noise: Noise, eta: float, variant: Variant = DIFFUSERS
) -> Iterator[Tensor]:
    """Solve by multistep UniPC for x0 predictions, Zhao et al. (2023).

    Each prediction first corrects the step that led to it, and then determines the next step. The order rises from 1
    and falls back to 1 for the last step, whose result is not corrected. `levels` must not repeat a sigma.
    """
    recent: list[Prediction] = []
    start, order = x, 1
    for i, (here, there) in enumerate(pairwise(levels)):
        predicted = Prediction(here.sigma, denoise(x, here))
        if recent:
            x = _step(start, recent[-1], [*recent[-order:-1], predicted], here.sigma, variant.b)
        recent = [*recent, predicted][-variant.order :]
        order = min(len(recent), len(levels) - 1 - i)
        start = x
        x = _step(start, predicted, recent[-order:-1], there.sigma, variant.b)
        yield x


def _step(
    x: Tensor, base: Prediction, others: Sequence[Prediction], sigma: float, b: Callable[[float], float]
) -> Tensor:
    """Go from x at one sigma to another: an Euler step, plus the change of x0 that the other predictions show.

    Args:
        x: x at base's sigma.
        base: the prediction that was made there.
        others: predictions at other sigmas.
        sigma: the sigma to go to.
        b: the paper's B(h).
    """
    result = torch.lerp(base.x0, x, sigma / base.sigma)
    if others:
        h = math.log(base.sigma / sigma)
        places = [math.log(base.sigma / other.sigma) / h for other in others]
        for other, place, weight in zip(others, places, _weights(places, h, b(h)), strict=True):
            result = result - (b(h) * weight / place) * (other.x0 - base.x0)
    return result


def _weights(places: Sequence[float], h: float, b_h: float) -> list[float]:
    """Solve the paper's R a = phi / B(h) for a, with predictions at these fractions of the step."""
    if len(places) == 1:
        # The paper's own shortcut: correct to leading order in h, and independent of B.
        return [0.5]
    phi, moments = math.expm1(-h) / -h - 1, []
    for k in range(1, len(places) + 1):
        moments.append(phi * math.factorial(k) / b_h)
        phi = phi / -h - 1 / math.factorial(k + 1)
    powers = torch.linalg.vander(torch.tensor(places, dtype=torch.float64)).T
    weights: list[float] = torch.linalg.solve(powers, torch.tensor(moments, dtype=torch.float64)).tolist()
    return weights
