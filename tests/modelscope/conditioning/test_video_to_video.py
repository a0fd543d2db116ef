"""Video to video against diffusers' vectors, and what a strength means."""

import itertools
import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from sd_t2v.miniature.recipe import MODEL_FOLDER
from sd_t2v.miniature.world import LABELS, draw
from sd_t2v.modelscope.checkpoints.load import load_model
from sd_t2v.modelscope.conditioning.source import FREE, Source, arrange_latents
from sd_t2v.modelscope.conditioning.strength import DIFFUSERS, WEBUI, cut_levels
from sd_t2v.modelscope.encode_decode import decode, encode_frames
from sd_t2v.modelscope.memory.plan import BALANCED, LADDER, Plan
from sd_t2v.modelscope.memory.plan_runner import PlanRunner, Task
from sd_t2v.modelscope.memory.residency import Residency
from sd_t2v.modelscope.pipeline import Conditions, generate, sample
from sd_t2v.modelscope.progress import Step
from sd_t2v.modelscope.request import VideoRequest
from sd_t2v.modelscope.run_options import RunOptions
from sd_t2v.modelscope.sampling.catalogue import get_sampler, sampler_names
from sd_t2v.tests.helpers.support import CPU, golden, golden_json, max_error, small_model

VECTORS = golden("vid2vid_unet_A")
ABOUT = golden_json("vid2vid_unet_A")
SAMPLERS = {"ddim": "DDIM", "dpmpp2m": "DPM++ 2M"}


def as_bytes() -> Tensor:
    return VECTORS["frames_u8"].to(torch.uint8)


def whole(frames: Tensor, **changes: Any) -> Source:
    count = len(frames)
    values = {"order": tuple(range(count)), "until": (FREE,) * count, "starts": True}
    return Source(frames, **values | changes)


def test_the_source_is_encoded_as_in_the_original() -> None:
    latents = encode_frames(Residency(small_model()), as_bytes())
    assert max_error(latents, VECTORS["mean.init_latents"]) < 1e-4


@pytest.mark.parametrize("run", ABOUT["runs"], ids=[run["key"] for run in ABOUT["runs"]])
@torch.inference_mode()
def test_equals_diffusers(run: dict[str, Any]) -> None:
    model = small_model()
    count, height, width, _ = VECTORS["frames_u8"].shape
    request = VideoRequest(
        sampler=SAMPLERS[run["scheduler"]],
        steps=run["steps"],
        cfg_scale=run["guidance_scale"],
        strength=run["strength"],
        strength_meaning=DIFFUSERS,
        frames=count, height=height, width=width, seed=1,
    )  # fmt: skip
    source = arrange_latents(whole(as_bytes(), latents=VECTORS["mean.init_latents"]), CPU.device)
    conditions = Conditions(VECTORS["cond"], VECTORS["uncond"], source=source)
    with PlanRunner(Residency(model), Task(model.unet, "sampling"), BALANCED, CPU) as unet:
        latents = sample(Residency(model), request, conditions, lambda: VECTORS["noise"], unet)
    # The second one amplifies rounding: diffusers' own results in single and double precision differ as much.
    assert max_error(latents, VECTORS[f"{run['key']}.out"]) < (1e-3 if run["scheduler"] == "ddim" else 5e-3)


@pytest.mark.parametrize("kept", ABOUT["steps_kept"], ids=lambda row: f"{row['steps']} x {row['strength']}")
def test_keeps_as_many_steps_as_diffusers(kept: dict[str, Any]) -> None:
    levels = get_sampler("DPM++ 2M").grid(kept["steps"])
    assert len(cut_levels(levels, kept["strength"], DIFFUSERS)) - 1 == kept["kept"]


@pytest.mark.parametrize(
    ("steps", "strength", "kept"),
    [(10, 0.6, 7), (10, 0, 1), (10, 1, 10), (1, 0, 1), (1, 1, 1), (20, 0.75, 16), (25, 0.3, 8), (1000, 1, 1000)],
)
def test_keeps_as_many_steps_as_the_webui(steps: int, strength: float, kept: int) -> None:
    """By its t_enc = int(min(strength, 0.999) * steps), and t_enc + 1 evaluations."""
    levels = get_sampler("Euler").grid(steps)
    found = cut_levels(levels, strength, WEBUI)
    assert len(found) - 1 == kept
    assert found == levels[-kept - 1 :]


def small_request(**changes: Any) -> VideoRequest:
    values = {"prompt": "a red ball", "steps": 4, "frames": 3, "width": 64, "height": 64, "seed": 7, "cfg_scale": 3}
    return VideoRequest(**values | changes)


def psnr(actual: Tensor, expected: Tensor) -> float:
    return -10 * math.log10(float(((actual.double() - expected.double()) / 255).square().mean()))


@pytest.mark.parametrize("sampler", sampler_names())
def test_without_a_step_the_source_comes_out_as_the_autoencoder_leaves_it(sampler: str) -> None:
    residency, request = (
        Residency(small_model()),
        small_request(sampler=sampler, strength=0, strength_meaning=DIFFUSERS),
    )
    expected = decode(residency, encode_frames(residency, as_bytes()))
    assert torch.equal(generate(residency, request, source=whole(as_bytes())), expected)


@pytest.mark.parametrize("plan", LADDER, ids=lambda plan: plan.name)
def test_every_plan_gives_the_same(plan: Plan) -> None:
    request = small_request(strength=0.7)
    expected = generate(Residency(small_model()), request, source=whole(as_bytes()))
    found = generate(Residency(small_model()), request, RunOptions(plan=plan), whole(as_bytes()))
    assert int((found.int() - expected.int()).abs().max()) <= 1


def test_latents_that_are_known_are_not_encoded_again() -> None:
    residency, request, steps = Residency(small_model()), small_request(strength=0.7), list[Step]()
    known = whole(as_bytes(), latents=encode_frames(residency, as_bytes()))
    found = generate(residency, request, RunOptions(on_step=steps.append), known)
    assert torch.equal(found, generate(residency, request, source=whole(as_bytes())))
    assert "source" not in {step.phase for step in steps}


def test_reports_each_frame_of_the_source() -> None:
    steps: list[Step] = []
    generate(Residency(small_model()), small_request(), RunOptions(on_step=steps.append), whole(as_bytes()))
    assert [(step.phase, step.done, step.total) for step in steps[:4]] == [
        *(("source", done, 3) for done in (1, 2, 3)), ("encode", 1, 1),
    ]  # fmt: skip


def test_the_more_strength_the_less_is_left_of_the_source() -> None:
    """The miniature is given a red ball that moves right, and asked for a blue square that moves up."""
    label = next(one for one in LABELS if one.caption.startswith("a red ball moving right"))
    source = (draw(label, 8, torch.Generator().manual_seed(3)).permute(0, 2, 3, 1) * 255).to(torch.uint8)
    residency = Residency(load_model(MODEL_FOLDER, CPU))
    size = {"steps": 20, "frames": 8, "width": 64, "height": 64}
    wish = VideoRequest(prompt="a blue square moving up", seed=5, cfg_scale=2, strength_meaning=DIFFUSERS, **size)
    latents = encode_frames(residency, source)

    def compare(strength: float) -> float:
        found = generate(residency, replace(wish, strength=strength), source=whole(source, latents=latents))
        return -10 * math.log10(float((found.float() - source.float()).square().mean()) / 255**2)

    there_and_back = decode(residency, latents)
    error = float((there_and_back.float() - source.float()).square().mean())
    found = [compare(strength) for strength in (0.0, 0.05, 0.3, 0.6, 0.8)]
    assert found[0] == pytest.approx(-10 * math.log10(error / 255**2), abs=0.01)
    assert all(less <= more for more, less in itertools.pairwise(found))
    assert found[0] - found[-1] > 10
