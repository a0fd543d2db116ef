"""On a CUDA device: runs that are ended or do not fit, and what they leave there."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch

from sd_t2v.modelscope.device import free_unused
from sd_t2v.modelscope.errors import OutOfMemory
from sd_t2v.modelscope.memory.plan import BALANCED, FAST, LADDER, SMALL, SMALLEST, Plan
from sd_t2v.modelscope.memory.residency import Residency
from sd_t2v.modelscope.model import Model
from sd_t2v.modelscope.pipeline import generate
from sd_t2v.modelscope.progress import Step
from sd_t2v.modelscope.request import VideoRequest
from sd_t2v.modelscope.run_options import RunOptions
from sd_t2v.tests.gpu.conftest import CARD, HALF, ON_CARD, allocated

pytestmark = pytest.mark.gpu
SIDE = 512 if ON_CARD else 64
REQUEST = VideoRequest(
    prompt="a red ball", steps=2, frames=32 if ON_CARD else 4, width=SIDE, height=SIDE, cfg_scale=9, seed=7
)
SHORT = replace(REQUEST, frames=4, steps=5)
NOISE = 1500 * torch.finfo(HALF).eps
"""How many levels of brightness rounding changes at the most, on average; guidance makes nine times of it."""
ALL_PLANS = [*LADDER, *(replace(plan, eight_bits=True) for plan in LADDER)]
ALL = pytest.mark.parametrize("plan", ALL_PLANS, ids=lambda plan: f"{plan.name}{', 8 bits' if plan.eight_bits else ''}")


class Stop(Exception):
    pass


def stop_while_sampling(step: Step) -> None:
    if step.phase == "sample":
        raise Stop


def no_change(message: str, plan: Plan) -> None:
    pytest.fail(f"{message} ({plan})")


@contextmanager
def limited_to(size: float) -> Iterator[None]:
    """As on a card of this many bytes, of which torch may take all."""
    free_unused(CARD)
    torch.cuda.set_per_process_memory_fraction(size / torch.cuda.get_device_properties(CARD).total_memory)
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


def measure_peak(model: Model, plan: Plan) -> int:
    """Bytes that torch reserves at the most."""
    free_unused(CARD)
    torch.cuda.reset_peak_memory_stats(CARD)
    generate(Residency(model), REQUEST, RunOptions(plan=plan, notify=no_change))
    return torch.cuda.max_memory_reserved(CARD)


@ALL
def test_a_run_gives_all_of_the_cards_memory_back(model: Model, plan: Plan) -> None:
    # Libraries take their workspaces once, and keep them.
    generate(Residency(model), SHORT, RunOptions(plan=plan, notify=no_change))
    before = allocated()
    generate(Residency(model), SHORT, RunOptions(plan=plan, notify=no_change))
    assert allocated() == before


@ALL
def test_an_interrupted_run_gives_all_of_the_cards_memory_back(model: Model, plan: Plan) -> None:
    generate(Residency(model), SHORT, RunOptions(plan=plan, notify=no_change))
    before = allocated()
    with pytest.raises(Stop):
        generate(Residency(model), SHORT, RunOptions(on_step=stop_while_sampling, plan=plan, notify=no_change))
    assert allocated() == before


def test_runs_with_different_plans_follow_each_other(model: Model) -> None:
    """The second has no use for what the first one's weights stayed there for."""
    residency = Residency(model)
    residency.keep(everything=True)
    expected = generate(residency, REQUEST, RunOptions(plan=FAST, notify=no_change))
    for plan in (SMALLEST, BALANCED, SMALL, FAST):
        found = generate(residency, REQUEST, RunOptions(plan=plan, notify=no_change))
        assert float((found.float() - expected.float()).abs().mean()) < NOISE
    residency.release()


@pytest.mark.skipif(not ON_CARD, reason="needs a device whose memory can be limited")
@pytest.mark.parametrize("fits", [BALANCED, SMALLEST], ids=lambda plan: plan.name)
def test_where_memory_runs_out_the_run_goes_on_with_a_smaller_plan(model: Model, fits: Plan) -> None:
    expected, before = generate(Residency(model), REQUEST, RunOptions(plan=FAST, notify=no_change)), allocated()
    peaks = {plan.name: measure_peak(model, plan) for plan in LADDER}
    limit = 1.1 * peaks[fits.name]
    assert limit < min(peaks[plan.name] for plan in (FAST, BALANCED) if plan != fits), peaks
    messages: list[str] = []
    with limited_to(limit):
        found = generate(
            Residency(model), REQUEST, RunOptions(plan=FAST, notify=lambda message, _: messages.append(message))
        )
    assert messages, peaks
    assert float((found.float() - expected.float()).abs().mean()) < NOISE
    assert allocated() == before


@pytest.mark.skipif(not ON_CARD, reason="needs a device whose memory can be limited")
def test_where_no_plan_fits_the_error_leaves_nothing_behind(model: Model) -> None:
    generate(Residency(model), REQUEST, RunOptions(plan=FAST, notify=no_change))
    before, peak = allocated(), measure_peak(model, SMALLEST)
    with limited_to(0.3 * peak), pytest.raises(OutOfMemory):
        generate(Residency(model), REQUEST, RunOptions(plan=FAST))
    assert allocated() == before
    generate(Residency(model), REQUEST, RunOptions(plan=FAST, notify=no_change))
