"""Pictures as frames: the 2023 extension's ramp, frame by frame and step by step."""

from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

from sd_t2v.modelscope.conditioning.hold import hold, start
from sd_t2v.modelscope.conditioning.images import RAMP, hold_images
from sd_t2v.modelscope.conditioning.source import FREE, HELD, Source, arrange_latents
from sd_t2v.modelscope.sampling.schedules import NoiseLevel, alphas_cumprod, ddim_levels
from sd_t2v.tests.helpers.support import CPU, golden, golden_json, max_error

RUNS = golden_json("incumbent_video_A")["img2vid"]
VECTORS = golden("incumbent_video_A")


def pictures(count: int) -> Tensor:
    return torch.zeros(count, 8, 8, 3, dtype=torch.uint8)


def is_held(weights: list[float], left: int, steps: int) -> list[bool]:
    """The 2023 extension's rule, when `left` of its steps are left."""
    return [weight <= left / steps and weight < 1 for weight in weights]


@pytest.mark.parametrize("run", RUNS, ids=lambda run: run["key"])
def test_the_rule_makes_the_2023_extensions_videos(run: dict[str, Any]) -> None:
    """Its loop with this rule and its own random numbers gives what it gave: so the rule is its own."""
    steps, weights, key = run["steps"], run["weights"], run["key"]
    acp = alphas_cumprod().float()
    levels = [int(level.timestep) for level in ddim_levels(steps)]
    cond, uncond = (VECTORS[name].mean() for name in ("cond", "uncond"))
    stream = iter(VECTORS[f"{key}.randn"])

    def noised(x: Tensor, t: int) -> Tensor:
        return acp[t].sqrt() * x + (1 - acp[t]).sqrt() * next(stream)

    # What it holds is the image mixed with noise by the frame's weight; we hold the image.
    mixed = VECTORS[f"{key}.start"]
    x = noised(mixed, levels[0])
    for step, (t, t_next) in enumerate(pairwise(levels), 1):
        eps = 0.1 * x + 0.01 * t / 1000 + uncond + run["guide_scale"] * (cond - uncond)
        x0 = (x - (1 - acp[t]).sqrt() * eps) / acp[t].sqrt()
        x = acp[t_next].sqrt() * x0 + (1 - acp[t_next]).sqrt() * eps
        next(stream)
        if step < steps:
            held = torch.tensor(is_held(weights, steps - step, steps)).view(1, 1, -1, 1, 1)
            x = torch.where(held, noised(mixed, t_next), x)
    assert max_error(x, VECTORS[f"{key}.out"]) < 5e-4


@pytest.mark.parametrize("run", RUNS, ids=lambda run: run["key"])
def test_frames_are_held_at_the_same_steps(run: dict[str, Any]) -> None:
    steps, weights = run["steps"], run["weights"]
    source = Source(pictures(1), (0,) * len(weights), tuple(weights), latents=torch.ones(1, 4, 1, 1, 1))
    levels = ddim_levels(steps)
    denoise = hold(lambda x, _: torch.zeros_like(x), levels, arrange_latents(source, CPU.device))
    for step, level in enumerate(levels[:-1]):
        found = denoise(torch.zeros(1, 4, len(weights), 1, 1), level)[0, 0, :, 0, 0].bool().tolist()
        assert found == is_held(weights, steps - step, steps)


def test_one_picture_reaches_as_far_as_it_is_told() -> None:
    ramp = hold_images(pictures(1), (0,), 5, RAMP, 5, 1)
    assert (ramp.order, ramp.until) == ((0,) * 5, (0, 0.25, 0.5, 0.75, 1))
    short = hold_images(pictures(1), (0,), 5, RAMP, 3, 1)
    assert short.until == (0, 0.5, 1, FREE, FREE)
    alone = hold_images(pictures(1), (2,), 5, RAMP, 1, 1)
    assert alone.until == (FREE, FREE, HELD, FREE, FREE)
    last = hold_images(pictures(1), (4,), 5, RAMP, 5, 1)
    assert last.until == (1, 0.75, 0.5, 0.25, 0)


def test_between_two_pictures_each_frame_follows_the_nearer_one() -> None:
    both = hold_images(pictures(2), (0, 8), 9, RAMP, 9, 1)
    assert both.order == (0,) * 5 + (1,) * 4
    assert both.until == (0, 0.25, 0.5, 0.75, 1, 0.75, 0.5, 0.25, 0)
    beside = hold_images(pictures(2), (3, 4), 9, RAMP, 9, 1)
    assert beside.until[3] == beside.until[4] == HELD


def test_pictures_are_noisy_where_they_are_held_at_the_start() -> None:
    latents, noise = torch.full((1, 4, 2, 1, 1), 3.0), torch.randn(1, 4, 3, 1, 1)
    source = arrange_latents(Source(pictures(2), (0, 1, 0), (HELD, 0.5, FREE), latents=latents), CPU.device)
    level = NoiseLevel(10.0, 900.0)
    x = start(noise, level, source)
    assert max_error(x[:, :, :2], 3 + 10 * noise[:, :, :2]) < 1e-5
    assert torch.equal(x[:, :, 2], start(noise, level, None)[:, :, 2])
