"""Weights in 8 bits: what they take, what they keep, and that the video stays nearly what it was."""

from dataclasses import replace

import pytest
import torch

from sd_t2v.benchmarks.cases import random_unet
from sd_t2v.miniature.evaluate import count_shares, judge_videos, request
from sd_t2v.miniature.recipe import MODEL_FOLDER
from sd_t2v.miniature.world import LABELS
from sd_t2v.modelscope.checkpoints.load import load_model
from sd_t2v.modelscope.config import UNetConfig
from sd_t2v.modelscope.errors import RequestError
from sd_t2v.modelscope.memory import float8 as eight_bits
from sd_t2v.modelscope.memory.choice import Limits, choose_plan
from sd_t2v.modelscope.memory.plan import BALANCED, LADDER, SMALL, Plan
from sd_t2v.modelscope.memory.residency import Residency, use_weights
from sd_t2v.modelscope.network.streamable import tensors_of
from sd_t2v.modelscope.network.unet3d import PassOptions
from sd_t2v.modelscope.pipeline import generate
from sd_t2v.modelscope.request import VideoRequest
from sd_t2v.modelscope.run_options import RunOptions
from sd_t2v.tests.helpers.support import CPU, small_model

IN_EIGHT = [replace(plan, eight_bits=True) for plan in LADDER]
PLANS = pytest.mark.parametrize("plan", IN_EIGHT, ids=[plan.name for plan in LADDER])
DEVICE = torch.device("cpu")


@pytest.mark.parametrize("scale", [1e-6, 0.02, 1.0, 1000.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_every_weight_keeps_its_first_digits(scale: float, dtype: torch.dtype) -> None:
    rows = (
        torch.randn(8, 4, 3, 3, generator=torch.Generator().manual_seed(0))
        * torch.logspace(-2, 0, 8)[:, None, None, None]
    )
    weights = {"weight": (rows * scale).to(dtype), "bias": torch.full((8,), 0.123 * scale, dtype=dtype)}
    stored = eight_bits.quantize(weights, DEVICE)
    assert stored["weight"].itemsize == 1
    found = eight_bits.dequantize(stored, DEVICE, dtype)
    assert torch.equal(found["bias"], weights["bias"])
    largest = weights["weight"].float().abs().amax((1, 2, 3), keepdim=True)
    # Three bits of mantissa; near zero, steps of a 200,000th of the row's largest. Half precision has steps of its own.
    allowed = weights["weight"].float().abs() / 16 + largest / 200_000 + 1e-7
    assert bool(((found["weight"] - weights["weight"]).float().abs() <= allowed).all())
    assert set(found) == set(weights)


def test_rows_of_zeros_stay_zero() -> None:
    zeros = {"weight": torch.zeros(3, 5)}
    assert torch.equal(
        eight_bits.dequantize(eight_bits.quantize(zeros, DEVICE), DEVICE, torch.float16)["weight"],
        torch.zeros(3, 5).half(),
    )


@PLANS
@torch.inference_mode()
def test_the_noise_points_where_it_did_and_weights_rest_as_they_were(plan: Plan) -> None:
    unet = random_unet(UNetConfig(dim=64, head_dim=32, context_dim=64))
    before = {name: tensor.data_ptr() for name, tensor in tensors_of(unet).items()}
    generator = torch.Generator().manual_seed(0)
    x, text = torch.randn(1, 4, 3, 8, 8, generator=generator), torch.randn(1, 77, 64, generator=generator)

    def noise(plan: Plan) -> torch.Tensor:
        with use_weights(unet, plan, CPU):
            return unet.predict_noise(
                x, torch.tensor([500.0]), [unet.text_context(text)], PassOptions(plan.chunk_budget)
            )[0]

    exact, found = noise(BALANCED), noise(plan)
    assert 0.99 <= torch.nn.functional.cosine_similarity(exact.flatten(), found.flatten(), dim=0) < 1 - 1e-6
    assert {name: tensor.data_ptr() for name, tensor in tensors_of(unet).items()} == before


def test_norms_and_the_first_and_last_layers_keep_their_precision() -> None:
    unet = small_model().unet
    plan = IN_EIGHT[1]
    with use_weights(unet, plan, CPU):
        for part in unet.parts():
            before = tensors_of(part)
            with unet.weights(part):
                changed = {name for name, tensor in tensors_of(part).items() if not torch.equal(tensor, before[name])}
            assert all(before[name].ndim >= 2 for name in changed)
            assert bool(changed) == (
                part not in unet.full_precision_parts() and any(x.ndim >= 2 and x.any() for x in before.values())
            )


def test_the_miniature_passes_its_judge() -> None:
    model = load_model(MODEL_FOLDER, CPU)
    limits = Limits(free=None, eight_bits=True)
    plan = choose_plan(model, request(model, "", 0), limits).plan
    assert plan.eight_bits
    found = count_shares(judge_videos(model, LABELS[::16], (3,), plan=plan, sampler="DPM++ 2M", steps=5))
    assert found == {"colour": 1, "shape": 1, "direction": 1, "all": 1}


def test_going_down_the_ladder_keeps_them() -> None:
    request = VideoRequest(prompt="a red ball", steps=1, frames=2, width=40, height=24, seed=7)
    streamed, resident = (
        generate(Residency(small_model()), request, RunOptions(plan=replace(plan, eight_bits=True)))
        for plan in (SMALL, BALANCED)
    )
    assert int((streamed.int() - resident.int()).abs().max()) <= 1
    exact = generate(Residency(small_model()), request, RunOptions(plan=BALANCED))
    assert not torch.equal(exact, resident)


def test_a_device_without_them_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(eight_bits, "FORMAT", None)
    with pytest.raises(RequestError, match=r"8 bits need torch 2\.1"):
        choose_plan(small_model(), VideoRequest(), Limits(free=None, eight_bits=True))
