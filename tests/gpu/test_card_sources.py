"""On a CUDA device: videos that are made from a source."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from sd_t2v.modelscope.conditioning.source import FREE, HELD, NONE, Source
from sd_t2v.modelscope.device import Place
from sd_t2v.modelscope.encode_decode import encode_frames
from sd_t2v.modelscope.memory.plan import FAST, LADDER, Plan
from sd_t2v.modelscope.memory.residency import Residency
from sd_t2v.modelscope.model import Model
from sd_t2v.modelscope.pipeline import generate
from sd_t2v.modelscope.progress import Step
from sd_t2v.modelscope.request import VideoRequest
from sd_t2v.modelscope.run_options import RunOptions
from sd_t2v.tests.gpu.conftest import CARD, allocated
from sd_t2v.tests.gpu.test_card import distance
from sd_t2v.tests.gpu.test_card_memory import NOISE, Stop, no_change

pytestmark = pytest.mark.gpu
PLANS = pytest.mark.parametrize("plan", LADDER, ids=[plan.name for plan in LADDER])
REQUEST = VideoRequest(prompt="a red ball", steps=6, frames=4, width=128, height=128, cfg_scale=3, seed=7, strength=0.7)


def draw_frames() -> Tensor:
    return torch.randint(0, 256, (4, 128, 128, 3), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)


def held_outside_the_middle() -> Source:
    """One frame is held, one is new, and the other two are held outside a square."""
    new = torch.zeros(1, 128, 128)
    new[:, 32:96, 32:96] = 1
    return Source(draw_frames(), (0, 1, NONE, 3), (HELD, HELD, FREE, 0.5), new=new)


def start_from_all() -> Source:
    return Source(draw_frames(), (0, 1, 2, 3), (FREE,) * 4, starts=True)


def make(model: Model, plan: Plan, source: Source) -> Tensor:
    return generate(Residency(model), REQUEST, RunOptions(plan=plan, notify=no_change), source)


def difference(found: Tensor, expected: Tensor) -> float:
    """Levels of brightness, on average."""
    return float((found.float() - expected.float()).abs().mean())


@PLANS
def test_the_latents_of_a_source_are_those_of_the_processor(model: Model, plan: Plan) -> None:
    def encode(device: torch.device, plan: Plan) -> Tensor:
        somewhere = replace(model, vae_place=Place(device, torch.float32))
        return encode_frames(Residency(somewhere), draw_frames(), RunOptions(plan=plan, notify=no_change))

    assert distance(encode(CARD, plan), encode(torch.device("cpu"), FAST)) < 1e-4


@PLANS
@pytest.mark.parametrize("source", [held_outside_the_middle(), start_from_all()], ids=["held", "started from"])
def test_every_plan_makes_the_same_of_a_source(model: Model, plan: Plan, source: Source) -> None:
    assert difference(make(model, plan, source), make(model, FAST, source)) < NOISE


@PLANS
def test_what_is_held_keeps_its_bytes(model: Model, plan: Plan) -> None:
    found = make(model, plan, held_outside_the_middle())
    outside = torch.ones(128, 128, dtype=torch.bool)
    outside[24:104, 24:104] = False
    assert difference(found[0][outside], draw_frames()[0][outside]) < 1
    assert difference(found[0][~outside], draw_frames()[0][~outside]) > 5


@PLANS
def test_an_interrupted_source_leaves_nothing_on_the_card(model: Model, plan: Plan) -> None:
    def stop(step: Step) -> None:
        if step.phase == "source":
            raise Stop

    make(model, plan, start_from_all())
    before = allocated()
    with pytest.raises(Stop):
        generate(Residency(model), REQUEST, RunOptions(plan=plan, on_step=stop), start_from_all())
    assert allocated() == before
