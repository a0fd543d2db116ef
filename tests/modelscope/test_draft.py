"""Draft mode: what deep levels returned serves the next steps, and nothing else changes."""

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from sd_t2v.modelscope.config import UNetConfig
from sd_t2v.modelscope.errors import OutOfMemory
from sd_t2v.modelscope.memory.plan import BALANCED, FAST, LADDER, Plan
from sd_t2v.modelscope.memory.residency import Residency
from sd_t2v.modelscope.network.deep_cache import DeepFeatureCache
from sd_t2v.modelscope.network.unet3d import PassOptions, UNet3D
from sd_t2v.modelscope.pipeline import generate
from sd_t2v.modelscope.request import VideoRequest
from sd_t2v.modelscope.run_options import RunOptions
from sd_t2v.tests.helpers.support import golden, max_error, small_model

PLANS = pytest.mark.parametrize("plan", LADDER, ids=[plan.name for plan in LADDER])


def request(**changes: Any) -> VideoRequest:
    values = {"prompt": "a red ball", "steps": 4, "frames": 2, "width": 40, "height": 24, "seed": 7}
    return VideoRequest(**(values | changes))


def predict(count: int, plan: Plan, cache: DeepFeatureCache | None, *, later: float = 0.0) -> list[Tensor]:
    unet, vectors = small_model().unet, golden("unet_small_A.io")
    x, t = vectors["f1.x"], vectors["f1.t"] + later
    contexts = [unet.text_context(torch.full((len(x), 77, 32), value)) for value in (1.0, -1.0)][:count]
    return unet.predict_noise(x, t, contexts, PassOptions(plan.chunk_budget, plan.batch_cfg, cache))


def distance(some: list[Tensor], others: list[Tensor]) -> float:
    return max(max_error(a, b) for a, b in zip(some, others, strict=True))


@PLANS
@torch.inference_mode()
def test_the_step_that_runs_everything_and_the_same_step_again_are_exact(plan: Plan) -> None:
    cache, expected = DeepFeatureCache(), predict(2, plan, None)
    for _ in range(3):
        assert distance(predict(2, plan, cache), expected) < 1e-6


@PLANS
@torch.inference_mode()
def test_another_step_differs_until_the_deep_levels_are_forgotten(plan: Plan) -> None:
    cache, expected = DeepFeatureCache(), predict(2, plan, None, later=-100)
    predict(2, plan, cache)
    assert distance(predict(2, plan, cache, later=-100), expected) > 1e-3
    cache.clear()
    assert distance(predict(2, plan, cache, later=-100), expected) < 1e-6


@pytest.mark.parametrize("change", [(1, BALANCED), (2, FAST)])
@torch.inference_mode()
def test_results_for_other_contexts_or_another_batch_do_not_serve(change: tuple[int, Plan]) -> None:
    """Guidance that ends, or a plan that changes, on the way."""
    cache = DeepFeatureCache()
    predict(2, BALANCED, cache)
    assert distance(predict(*change, cache, later=-100), predict(*change, None, later=-100)) < 1e-6


@pytest.mark.parametrize("one_batch", [False, True])
@torch.inference_mode()
def test_a_pass_that_failed_half_way_does_not_serve(one_batch: bool) -> None:
    cache, calls = DeepFeatureCache(), itertools.count(1)

    def fail_at_the_second(*_: Any) -> None:
        if next(calls) == 2:
            raise OutOfMemory("Here.")

    hook = small_model().unet.middle_block[0].register_forward_pre_hook(fail_at_the_second)
    with pytest.raises(OutOfMemory):
        predict(2, BALANCED, cache)
    hook.remove()
    # Whether the next attempt is two passes again or one batch, which a half of the results would seem to fit.
    plan = FAST if one_batch else BALANCED
    assert distance(predict(2, plan, cache, later=-100), predict(2, plan, None, later=-100)) < 1e-6


def test_at_full_size_a_step_that_remembers_computes_a_third() -> None:
    with torch.device("meta"):
        unet = UNet3D(UNetConfig()).half().eval().requires_grad_(requires_grad=False)
    x = torch.empty(1, 4, 24, 32, 32, dtype=torch.float16, device="meta")
    context = unet.text_context(torch.empty(1, 77, 1024, dtype=torch.float16, device="meta"))
    cache, flops = DeepFeatureCache(), []
    for _ in range(2):
        with torch.inference_mode(), FlopCounterMode(display=False) as counter:
            unet.predict_noise(x, torch.empty(1, device="meta"), [context] * 2, PassOptions(cache=cache))
        flops.append(counter.get_total_flops())
    assert flops[1] <= 0.35 * flops[0]


def test_a_video_drafts_from_step_to_step() -> None:
    exact, drafted, coarser = (generate(Residency(small_model()), request(draft=draft)) for draft in (1, 2, 4))
    assert not torch.equal(exact, drafted)
    errors = [(frames.float() - exact.float()).square().mean() for frames in (drafted, coarser)]
    assert 0 < errors[0] < errors[1]


@PLANS
def test_every_plan_drafts_the_same_video(plan: Plan) -> None:
    frames, expected = (
        generate(Residency(small_model()), request(draft=2), RunOptions(plan=one)) for one in (plan, BALANCED)
    )
    assert int((frames.int() - expected.int()).abs().max()) <= 1
