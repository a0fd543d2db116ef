"""End to end against the original's frames, and what a run promises: seeds, progress, interruption."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from sd_t2v.modelscope.encode_decode import decode
from sd_t2v.modelscope.errors import ModelError, OutOfMemory
from sd_t2v.modelscope.memory.plan import LADDER, Plan
from sd_t2v.modelscope.memory.plan_runner import PlanRunner, Task
from sd_t2v.modelscope.memory.residency import Residency
from sd_t2v.modelscope.network.autoencoder import to_uint8
from sd_t2v.modelscope.pipeline import Conditions, encode, generate, sample
from sd_t2v.modelscope.progress import Step
from sd_t2v.modelscope.request import VideoRequest
from sd_t2v.modelscope.run_options import RunOptions
from sd_t2v.tests.helpers.support import CPU, golden, golden_json, max_error, small_model

RUNS = golden_json("e2e_A")["runs"]


def request_of(run: dict[str, object]) -> VideoRequest:
    return VideoRequest(
        prompt=run["prompt"],
        negative_prompt=run["negative"],
        sampler="DDIM",
        steps=run["steps"],
        cfg_scale=run["guide_scale"],
        frames=run["frames"],
        height=run["height"],
        width=run["width"],
        seed=1,
    )


@pytest.mark.parametrize("plan", LADDER, ids=[plan.name for plan in LADDER])
@pytest.mark.parametrize("run", RUNS, ids=[run["run"] for run in RUNS])
@torch.inference_mode()
def test_equals_the_original_from_prompt_to_frames(run: dict[str, object], plan: Plan) -> None:
    model, request = small_model(), request_of(run)
    vectors = {
        key.partition(".")[2]: value for key, value in golden("e2e_A").items() if key.startswith(str(run["run"]))
    }
    residency = Residency(model)
    with PlanRunner(residency, Task(model.text_encoder, "encoding"), plan, CPU) as text:
        texts = encode(model, [request.prompt, request.negative_prompt], text)
    with PlanRunner(residency, Task(model.unet, "sampling"), plan, CPU) as unet:
        latents = sample(residency, request, Conditions(*texts), lambda: vectors["noise"], unet)
    assert max_error(latents, vectors["x0"]) < 5e-3
    frames = decode(Residency(model), latents, RunOptions(plan=plan))
    difference = (frames.int() - vectors["frames_u8"].int()).abs()
    assert int(difference.max()) <= 1
    assert float((difference > 0).float().mean()) < 0.01


def small_request(**changes: object) -> VideoRequest:
    values: dict[str, object] = {"prompt": "a red ball", "steps": 2, "frames": 2, "width": 40, "height": 24, "seed": 7}
    return VideoRequest(**(values | changes))  # type: ignore[arg-type]


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others() -> None:
    first, again, other = (generate(Residency(small_model()), small_request(seed=seed)) for seed in (7, 7, 8))
    assert first.shape == (2, 24, 40, 3)
    assert first.dtype == torch.uint8
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("sampler", ["Euler a", "DDIM"])
def test_noise_drawn_on_the_way_is_seeded_too(sampler: str) -> None:
    runs = [generate(Residency(small_model()), small_request(sampler=sampler, eta=1.0, steps=4)) for _ in range(2)]
    assert torch.equal(*runs)


def test_prompt_negative_prompt_and_guidance_matter() -> None:
    base = generate(Residency(small_model()), small_request())
    for change in ({"prompt": "a blue cat"}, {"negative_prompt": "red"}, {"cfg_scale": 3.0}):
        assert not torch.equal(base, generate(Residency(small_model()), small_request(**change)))


@pytest.mark.parametrize("change", [{"cfg_rescale": 0.7}, {"cfg_from": 0.5}, {"cfg_until": 0.5}, {"draft": 2}])
def test_advanced_parameters_reach_the_sampling(change: dict[str, float]) -> None:
    assert not torch.equal(*(generate(Residency(small_model()), small_request(**changes)) for changes in ({}, change)))


@pytest.mark.parametrize("change", [{"cfg_rescale": 0.7}, {"cfg_from": 0.5}, {"cfg_until": 0.5}])
def test_guidance_that_is_off_has_no_details(change: dict[str, float]) -> None:
    assert torch.equal(
        *(generate(Residency(small_model()), small_request(cfg_scale=1, **changes)) for changes in ({}, change))
    )


def test_without_guidance_the_negative_prompt_is_not_asked() -> None:
    plain, negative = (
        generate(Residency(small_model()), small_request(cfg_scale=1.0, negative_prompt=text))
        for text in ("", "anything")
    )
    assert torch.equal(plain, negative)


def test_reports_every_step_in_order() -> None:
    steps: list[Step] = []
    generate(Residency(small_model()), small_request(sampler="DDIM", steps=6), RunOptions(on_step=steps.append))
    assert [(step.phase, step.done, step.total) for step in steps] == [
        ("encode", 1, 1),
        *(("sample", i, 7) for i in range(1, 8)),
        *(("decode", i, 2) for i in range(1, 3)),
    ]
    latents = [step.denoised for step in steps if step.phase == "sample"]
    assert all(value is not None and value.shape == (1, 4, 2, 3, 5) for value in latents)


class Stop(Exception):
    pass


@pytest.mark.parametrize("phase", ["encode", "sample", "decode"])
def test_raising_from_on_step_interrupts_at_once(phase: str) -> None:
    seen: list[str] = []

    def on_step(step: Step) -> None:
        seen.append(step.phase)
        if step.phase == phase:
            raise Stop

    with pytest.raises(Stop):
        generate(Residency(small_model()), small_request(), RunOptions(on_step=on_step))
    assert seen.count(phase) == 1
    assert seen[-1] == phase


def test_numbers_that_are_not_finite_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    unet = small_model().unet
    predict_noise: Callable[..., list[Tensor]] = unet.predict_noise
    monkeypatch.setattr(
        unet, "predict_noise", lambda *args, **kwargs: [x * torch.nan for x in predict_noise(*args, **kwargs)]
    )
    with pytest.raises(ModelError, match=r"sampling.*lower CFG"):
        generate(Residency(small_model()), small_request())


def test_out_of_memory_says_so_and_what_helps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(small_model().unet, "predict_noise", lambda *_, **__: torch.empty(10**15))
    with pytest.raises(
        OutOfMemory, match=r"memory for sampling 2 frames of 40 x 24, even with the plan 'smallest'\. Ask"
    ):
        generate(Residency(small_model()), small_request())


def test_other_runtime_errors_keep_their_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(small_model().unet, "predict_noise", lambda *_, **__: torch.zeros(2) @ torch.zeros(3))
    with pytest.raises(RuntimeError, match="inconsistent tensor size"):
        generate(Residency(small_model()), small_request())


def test_prompts_of_different_length_can_be_guided_against_each_other() -> None:
    frames = generate(Residency(small_model()), small_request(prompt="word " * 100, negative_prompt=""))
    assert frames.shape == (2, 24, 40, 3)


def test_latents_decode_frame_by_frame_as_in_one_batch() -> None:
    latents = torch.randn(1, 4, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    whole = to_uint8(small_model().autoencoder.latents_to_frames(latents[0].transpose(0, 1)))
    assert int((decode(Residency(small_model()), latents).int() - whole.int()).abs().max()) <= 1
