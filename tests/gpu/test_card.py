"""On a CUDA device: the numbers of the CPU under every plan. Skipped where there is none."""

import functools
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from sd_t2v.miniature.evaluate import count_shares, judge_videos
from sd_t2v.miniature.recipe import MODEL_FOLDER
from sd_t2v.miniature.world import LABELS
from sd_t2v.modelscope.checkpoints.load import load_model
from sd_t2v.modelscope.device import Place, prefers_channels_last
from sd_t2v.modelscope.lora.turbo import SCALE_DIM
from sd_t2v.modelscope.memory import placing, recorded_pass
from sd_t2v.modelscope.memory.lora_deltas import NO_DELTAS, Delta, Deltas, LoraDeltas
from sd_t2v.modelscope.memory.plan import BALANCED, FAST, LADDER, SMALL, SMALLEST, Plan
from sd_t2v.modelscope.memory.recorded_pass import PassRecorder, Run
from sd_t2v.modelscope.memory.residency import Residency, use_weights
from sd_t2v.modelscope.model import Model
from sd_t2v.modelscope.network.slices import WHOLE, ChunkBudget
from sd_t2v.modelscope.network.unet3d import PassOptions
from sd_t2v.modelscope.pipeline import generate
from sd_t2v.modelscope.request import VideoRequest
from sd_t2v.modelscope.run_options import RunOptions
from sd_t2v.tests.gpu.conftest import CARD, HALF, ON_CARD

pytestmark = pytest.mark.gpu
Expect = Callable[[bool, bool], Tensor]
LIKE = 0.9999 if torch.float16 == HALF else 0.999
CPU = Place(torch.device("cpu"), torch.float32)
PLANS = pytest.mark.parametrize("plan", LADDER, ids=[plan.name for plan in LADDER])
EIGHT_BITS = pytest.mark.parametrize("eight_bits", [False, True], ids=["as stored", "8 bits"])
LORA = pytest.mark.parametrize("lora", [False, True], ids=["plain", "LoRA"])


def draw(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def make_deltas(model: Model, *, lora: bool) -> Deltas:
    """What a LoRA adds to every third matrix, convolutions included."""
    if not lora:
        return NO_DELTAS
    matrices = [(name, weight) for name, weight in model.unet.state_dict().items() if weight.ndim >= 2]
    return {
        name: [Delta(draw(len(weight), 4, seed=1), draw(4, weight[0].numel(), seed=2), 0.01)]
        for name, weight in matrices[::3]
    }


@torch.no_grad()
def predict(model: Model, plan: Plan, place: Place, deltas: Deltas, passes: int = 1) -> list[Tensor]:
    """The noise under two texts, of each of the passes, on the CPU."""
    x = draw(1, 4, 6, 16, 24, seed=3).to(*place)
    found = []
    with use_weights(model.unet, plan, place, deltas):
        contexts = [model.unet.text_context(draw(1, 77, 64, seed=4 + n).to(*place)) for n in range(2)]
        for _ in range(passes):
            timesteps = torch.tensor([500.0], device=place.device)
            options = PassOptions(plan.budget_on(place.device), plan.batch_cfg)
            found.append(torch.stack(model.unet.predict_noise(x, timesteps, contexts, options)).float().cpu())
    return found


@pytest.fixture(scope="session")
def expect_noise(model: Model) -> Expect:
    """What the CPU predicts in single precision, in 8 bits or not, with a LoRA or not."""

    @functools.cache
    def expect(eight_bits: bool, lora: bool) -> Tensor:
        plan = replace(FAST, eight_bits=eight_bits)
        return predict(model, plan, CPU, make_deltas(model, lora=lora))[0]

    return expect


def distance(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


def likeness(found: Tensor, expected: Tensor) -> float:
    return float(torch.cosine_similarity(found.flatten(), expected.flatten(), dim=0))


@LORA
@EIGHT_BITS
@PLANS
def test_in_single_precision_the_noise_is_that_of_the_cpu(
    model: Model, plan: Plan, eight_bits: bool, lora: bool, expect_noise: Expect
) -> None:
    plan, deltas = replace(plan, eight_bits=eight_bits), make_deltas(model, lora=lora)
    found = predict(model, plan, Place(CARD, torch.float32), deltas)[0]
    expected = expect_noise(eight_bits, lora)
    # A weight that merging made differ in its last bit may be rounded to its neighbour in 8 bits, 6 % away.
    assert distance(found, expected) < (1e-3 if eight_bits and lora else 1e-4)


@LORA
@EIGHT_BITS
def test_in_half_precision_all_plans_predict_the_same(
    model: Model, eight_bits: bool, lora: bool, expect_noise: Expect
) -> None:
    deltas, plans = make_deltas(model, lora=lora), [replace(plan, eight_bits=eight_bits) for plan in LADDER]
    single = expect_noise(eight_bits, lora)
    first, *others = (predict(model, plan, Place(CARD, HALF), deltas)[0] for plan in plans)
    assert likeness(first, single) > LIKE
    assert min(likeness(other, first) for other in others) >= LIKE


def record_nothing(recorder: PassRecorder, key: object, run: Run, inputs: Sequence[Tensor]) -> list[Tensor]:
    return run(inputs)


def count_played(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A list that grows with each pass that is played."""
    played: list[int] = []
    play = recorded_pass._Recording.play

    def note(recording: Any, inputs: Sequence[Tensor]) -> list[Tensor]:
        played.append(1)
        return play(recording, inputs)

    monkeypatch.setattr(recorded_pass._Recording, "play", note)
    return played


@pytest.mark.skipif(not ON_CARD, reason="needs a device that plays recordings")
def test_a_pass_that_takes_the_guidance_scale_is_recorded_too(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    played = count_played(monkeypatch)
    guidance = [Delta(draw(model.unet.config.dim, 4, seed=1), draw(4, SCALE_DIM, seed=2), 0.01)]
    request = VideoRequest(prompt="a red ball", steps=6, sampler="LCM", frames=4, width=128, height=128, seed=7)
    generate(Residency(model), request, RunOptions(plan=FAST, loras=LoraDeltas(guidance=guidance)))
    assert played


@pytest.mark.skipif(not ON_CARD, reason="needs a device that plays recordings")
@pytest.mark.parametrize("plan", [FAST, BALANCED], ids=lambda plan: plan.name)
def test_recorded_passes_are_those_launched_one_by_one(
    model: Model, plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Across runs of the same and of another size, with the weights kept and coming anew."""
    played = count_played(monkeypatch)
    short = VideoRequest(prompt="a red ball", steps=6, frames=4, width=128, height=128, cfg_scale=9, seed=7)
    requests = [short, replace(short, prompt="a blue square", seed=8), replace(short, width=192), short]
    kept, anew = Residency(model), Residency(model)
    kept.keep(everything=True)
    found = [generate(residency, request, RunOptions(plan=plan)) for residency in (kept, anew) for request in requests]
    assert len(played) > 20
    kept.release()
    monkeypatch.setattr(PassRecorder, "run", record_nothing)
    expected = [generate(anew, request, RunOptions(plan=plan)) for request in requests]
    for video, other in zip(found, expected * 2, strict=True):
        assert float((video.float() - other.float()).abs().mean()) < 0.01


@pytest.mark.skipif(not ON_CARD, reason="channels come last on cards only")
@torch.no_grad()
def test_channels_come_last_where_that_is_quicker(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    quicker = prefers_channels_last(Place(CARD, HALF))
    assert quicker == (torch.cuda.get_device_capability(CARD)[0] >= 8)
    noise = {}
    for last in (False, True):
        monkeypatch.setattr(placing, "prefers_channels_last", lambda _, last=last: last)
        with use_weights(model.unet, FAST, Place(CARD, HALF)):
            stem = model.unet.input_blocks[0][0]
            assert stem.weight.is_contiguous(memory_format=torch.channels_last) == last
        noise[last] = predict(model, FAST, Place(CARD, HALF), NO_DELTAS)[0]
    assert likeness(noise[True], noise[False]) > LIKE


STREAMED = [SMALL, SMALLEST, replace(SMALLEST, eight_bits=True)]


@LORA
@pytest.mark.parametrize("plan", STREAMED, ids=["small", "smallest", "smallest, 8 bits"])
def test_streamed_weights_are_always_there_in_time(model: Model, plan: Plan, lora: bool) -> None:
    """The first pass brings each part when it is needed, the later ones ahead of that."""
    first, *others = predict(model, plan, Place(CARD, HALF), make_deltas(model, lora=lora), passes=10)
    assert all(torch.equal(other, first) for other in others)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_the_miniature_shows_what_the_prompt_says(dtype: torch.dtype) -> None:
    miniature = load_model(MODEL_FOLDER, Place(CARD, dtype if CARD.type == "cuda" else torch.float32))
    found = count_shares(judge_videos(miniature, LABELS[3::6], (3,)))
    assert found["colour"] >= 0.98
    assert found["all"] >= 0.85


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.float32, HALF], ids=str)
def test_a_frame_decoded_in_rows_is_that_decoded_at_once(model: Model, dtype: torch.dtype) -> None:
    autoencoder = model.autoencoder
    latents = draw(1, 4, 24, 32, seed=9).to(CARD, dtype)
    with use_weights(autoencoder, LADDER[0], Place(CARD, dtype)):
        whole, rows = (autoencoder.latents_to_frames(latents, budget) for budget in (WHOLE, ChunkBudget(100_000)))
    assert float((whole - rows).abs().max()) <= 16 * torch.finfo(dtype).eps + 1e-4
    assert likeness(rows.float(), whole.float()) > 0.9999
