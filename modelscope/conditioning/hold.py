"""Holds parts of a video at their source while the rest is sampled: images as frames, extension, inpainting.

Held parts never leave `source + sigma * noise`, whatever the solver: between two noise levels it goes along the line
through x and x0, and x0 is replaced by the source. No solver needs to know.
"""

from bisect import bisect_right
from collections.abc import Sequence

import torch
from torch import Tensor

from ..sampling.sampler import Denoise
from ..sampling.schedules import NoiseLevel, to_ve
from .source import FREE, SourceLatents


def start(noise: Tensor, first: NoiseLevel, source: SourceLatents | None) -> Tensor:
    """Return a solver's first x at its first noise level: noise, and in it the source where it counts.

    noise: standard normal, [1, c, f, h, w].
    """
    x = to_ve(noise, first)
    if source is None:
        return x
    noisy = source.latents + first.sigma * noise
    return noisy if source.starts else torch.lerp(x, noisy, _share_held(source, 1.0))


def hold(denoise: Denoise, levels: Sequence[NoiseLevel], source: SourceLatents) -> Denoise:
    """Return a denoiser whose answers are the source in the held parts.

    levels: all noise levels of the request, falling, with those that its strength leaves out.
    """
    rising = sorted(level.sigma for level in levels[:-1])

    def denoise_and_hold(x: Tensor, level: NoiseLevel) -> Tensor:
        left = bisect_right(rising, level.sigma) / len(rising)
        return torch.lerp(denoise(x, level), source.latents, _share_held(source, left))

    return denoise_and_hold


def finish(latents: Tensor, source: SourceLatents) -> Tensor:
    """Return final latents [1, c, f, h, w] with the source in all parts that are held to the end."""
    return torch.lerp(latents, source.latents, _share_held(source, 0.0))


def _share_held(source: SourceLatents, left: float) -> Tensor:
    """Return how much of each pixel is held, 0..1: [1, 1, f, h, w]. left: share of the steps that are left."""
    return source.weight * ((source.until <= left) & (source.until < FREE))
