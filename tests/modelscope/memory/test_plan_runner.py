"""Runs on a device that is too small, or whose numbers are: what happens then, and that the video is the same."""

import gc
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sd_t2v.modelscope.checkpoints.load import load_model
from sd_t2v.modelscope.device import Place
from sd_t2v.modelscope.errors import ModelError, OutOfMemory
from sd_t2v.modelscope.memory import plan as plan_module
from sd_t2v.modelscope.memory.plan import BALANCED, FAST, LADDER, SMALL, SMALLEST, Plan, next_below
from sd_t2v.modelscope.memory.plan_runner import PlanRunner, Task
from sd_t2v.modelscope.memory.residency import Residency
from sd_t2v.modelscope.memory.streaming import stream_weights
from sd_t2v.modelscope.model import Model
from sd_t2v.modelscope.network.slices import ChunkBudget
from sd_t2v.modelscope.network.streamable import tensors_of
from sd_t2v.modelscope.pipeline import generate
from sd_t2v.modelscope.progress import Step
from sd_t2v.modelscope.request import VideoRequest
from sd_t2v.modelscope.run_options import RunOptions
from sd_t2v.tests.helpers.live_bytes import LiveBytes
from sd_t2v.tests.helpers.support import CPU, write_model_folder

REQUEST = VideoRequest(prompt="a red ball", steps=3, frames=2, width=40, height=40, seed=7)


class Messages(list[str]):
    """What a run said; each is checked to name the plan that the run goes on with."""

    def __call__(self, message: str, plan: Plan) -> None:
        self.append(message)
        assert "Memory" not in message or "CPU" in message or repr(plan.name) in message.split(";")[1]


class SmallDevice(LiveBytes):
    """Whatever is computed lies on a device of this many bytes, which says so when they do not suffice.

    The model's files are in half precision and compute in single, so weights that come to be used are copies, too.
    """

    def __init__(self, size: float) -> None:
        super().__init__()
        self.size = size

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        before = self.now
        out = super().__torch_dispatch__(func, types, args, kwargs)
        # Small tensors find a place in what torch has already.
        if self.now > max(self.size, before + 10_000):
            del out
            raise torch.OutOfMemoryError("out of memory")
        return out


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return load_model(write_model_folder(tmp_path_factory.mktemp("model") / "t2v"), CPU)


def peak(model: Model, plan: Plan) -> int:
    with LiveBytes() as live:
        generate(Residency(model), REQUEST, RunOptions(plan=plan))
    return live.peak


def at_rest(model: Model) -> bool:
    parts = (model.text_encoder, model.unet, model.autoencoder)
    return all(x.dtype == torch.float16 for part in parts for x in tensors_of(part).values())


@pytest.fixture
def ladder(monkeypatch: pytest.MonkeyPatch) -> tuple[Plan, ...]:
    """The plans with pieces as small as the network is: otherwise all would hold whole layers."""
    sizes = (None, 60_000, 60_000, 5_000)
    plans = tuple(replace(plan, chunk_budget=ChunkBudget(n)) for plan, n in zip(LADDER, sizes, strict=True))
    monkeypatch.setattr(plan_module, "LADDER", plans)
    return plans


@pytest.mark.parametrize("end", [1, 3])
def test_a_run_goes_down_to_the_first_plan_that_fits(model: Model, ladder: tuple[Plan, ...], end: int) -> None:
    roomy = generate(Residency(model), REQUEST, RunOptions(plan=ladder[0]))
    messages = Messages()
    with SmallDevice(1.02 * peak(model, ladder[end])):
        frames = generate(Residency(model), REQUEST, RunOptions(plan=ladder[0], notify=messages))
    assert [message.split("'")[3] for message in messages] == [plan.name for plan in ladder[1 : end + 1]]
    assert int((frames.int() - roomy.int()).abs().max()) <= 1
    assert at_rest(model)


def test_a_device_too_small_for_any_plan_is_an_error_that_says_what_helps(model: Model) -> None:
    with SmallDevice(10_000), pytest.raises(OutOfMemory, match=r"even with the plan 'smallest'\. Ask for fewer"):
        generate(Residency(model), REQUEST, RunOptions(plan=FAST, notify=Messages()))
    assert at_rest(model)


def test_steps_that_were_done_are_not_done_again(model: Model, ladder: tuple[Plan, ...]) -> None:
    """Memory goes away after the second step: another program took it."""
    device, steps = SmallDevice(float("inf")), []
    limit = 1.02 * peak(model, ladder[2])

    def on_step(step: Step) -> None:
        steps.append((step.phase, step.done))
        if step == ("sample", 2, 3, step.denoised):
            device.size = limit

    messages = Messages()
    with device:
        frames = generate(Residency(model), REQUEST, RunOptions(on_step=on_step, plan=ladder[0], notify=messages))
    assert [done for phase, done in steps if phase == "sample"] == [1, 2, 3]
    assert len(messages) == 2
    assert int((frames.int() - generate(Residency(model), REQUEST).int()).abs().max()) <= 1


def test_a_model_that_stayed_on_the_device_leaves_it_when_memory_is_short(
    model: Model, ladder: tuple[Plan, ...]
) -> None:
    messages = Messages()
    limit = 1.02 * peak(model, ladder[3])
    with SmallDevice(float("inf")) as device:
        residency = Residency(model)
        residency.keep(everything=True)
        device.size = limit
        generate(residency, REQUEST, RunOptions(plan=ladder[0], notify=messages))
    assert messages
    assert at_rest(model)


@pytest.mark.parametrize("plan", [SMALLEST, replace(BALANCED, eight_bits=True)], ids=["streamed", "8 bits"])
def test_a_model_that_stayed_on_the_device_leaves_it_for_a_plan_that_has_no_room_for_it(
    model: Model, plan: Plan
) -> None:
    residency = Residency(model)
    residency.keep(everything=True)
    assert residency.bytes_kept(model.unet, CPU.device)
    left = []

    def on_step(step: Step) -> None:
        at_hand = step.phase == "decode" or at_rest(model)
        left.append(at_hand and not residency.bytes_kept(model.unet, CPU.device))

    generate(residency, REQUEST, RunOptions(on_step=on_step, plan=plan))
    assert all(left)
    assert at_rest(model)


def test_decoding_that_fits_nowhere_on_the_device_goes_on_on_the_cpu(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    use = Residency.use

    def use_full_card(residency: Residency, *args: Any) -> AbstractContextManager[None]:
        if args[2].device.type != "cpu":
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return use(residency, *args)

    expected, messages = generate(Residency(model), REQUEST), Messages()
    monkeypatch.setattr(Residency, "use", use_full_card)
    elsewhere = replace(model, vae_place=Place(torch.device("cuda"), torch.float16))
    assert torch.equal(generate(Residency(elsewhere), REQUEST, RunOptions(notify=messages)), expected)
    assert messages[-1] == "Memory ran out while decoding; continuing on the CPU."


@pytest.mark.parametrize("plan", [*LADDER, *(replace(plan, eight_bits=True) for plan in LADDER)], ids=str)
def test_a_run_frees_its_memory_without_the_garbage_collector(model: Model, plan: Plan) -> None:
    """Which takes its time in a process with as many objects as the WebUI has."""
    gc.collect()
    gc.disable()
    try:
        with LiveBytes() as live:
            generate(Residency(model), REQUEST, RunOptions(plan=plan))
            assert live.now < 100_000
    finally:
        gc.enable()


class Stop(Exception):
    pass


@pytest.mark.parametrize("plan", [BALANCED, SMALL], ids=lambda plan: plan.name)
def test_an_interruption_leaves_the_weights_at_rest(model: Model, plan: Plan) -> None:
    def on_step(step: Step) -> None:
        if step.phase == "sample":
            raise Stop

    with LiveBytes() as live:
        with pytest.raises(Stop):
            generate(Residency(model), REQUEST, RunOptions(on_step=on_step, plan=plan))
        gc.collect()
        assert live.now < 100_000
    assert at_rest(model)
    assert generate(Residency(model), REQUEST, RunOptions(plan=SMALLEST)).shape == (2, 40, 40, 3)


HALF = Place(torch.device("cpu"), torch.float16)


def test_numbers_too_large_for_half_precision_are_computed_again_in_another(model: Model) -> None:
    messages = Messages()
    tried: list[torch.dtype] = []

    def work(_: Plan, place: Place) -> Tensor:
        tried.append(place.dtype)
        return torch.full((2,), 1e38, dtype=torch.float64).to(place.dtype) * 10

    runner = PlanRunner(Residency(model), Task(nn.Identity(), "testing"), BALANCED, HALF, messages)
    with runner, pytest.raises(ModelError, match="not finite while testing"):
        runner(work)
    assert tried == [torch.float16, torch.bfloat16, torch.float32]
    assert "too large for float16; continuing in bfloat16" in messages[0]


def test_black_frames_in_half_precision_become_the_video(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on cards whose half precision overflows: in the network, and in the decoder."""
    half = replace(model, place=HALF, vae_place=HALF)
    for part, name in ((half.unet, "predict_noise"), (half.autoencoder, "latents_to_frames")):
        monkeypatch.setattr(part, name, overflowing(getattr(part, name)))
    messages = Messages()
    frames = generate(Residency(half), REQUEST, RunOptions(notify=messages))
    assert len(messages) == 2
    difference = (frames.int() - generate(Residency(model), REQUEST).int()).abs().float()
    assert difference.mean() < 8  # of 255; bfloat16 has three digits


def overflowing(function: Callable[..., Any]) -> Callable[..., Any]:
    """Wrong as soon as its first argument is in half precision."""

    def run(x: Tensor, *args: Any, **kwargs: Any) -> Any:
        out = function(x, *args, **kwargs)
        bad = torch.nan if x.dtype == torch.float16 else 1
        return [part * bad for part in out] if isinstance(out, list) else out * bad

    return run


def test_streamed_weights_are_there_only_while_their_part_runs(model: Model) -> None:
    unet = model.unet
    with LiveBytes() as live, stream_weights(unet, CPU):
        for part in (unet.time_embed, unet.middle_block[0], unet.out):
            with unet.weights(part):
                assert live.now == 4 * sum(x.numel() for x in tensors_of(part).values())
                assert all(x.dtype == torch.float32 for x in tensors_of(part).values())
            assert live.now == 0
    assert at_rest(model)


def test_weights_that_are_kept_are_not_copied_again(model: Model) -> None:
    residency = Residency(model)
    with LiveBytes() as live:
        residency.keep(everything=False)
        size = live.now
        assert size == residency.bytes_kept(model.unet, CPU.device)
        for _ in range(2):
            assert at_rest(model)
            with residency.use(model.unet, BALANCED, CPU):
                assert live.now == size
                assert model.unet.out[2].weight.dtype == torch.float32
        residency.release()
        assert live.now == 0
    assert at_rest(model)


def test_a_part_of_a_network_uses_what_is_kept_of_it(model: Model) -> None:
    residency, decoding = Residency(model), nn.ModuleList([model.autoencoder.decoder])
    residency.keep(everything=True)
    with LiveBytes() as live, residency.use(decoding, BALANCED, CPU):
        assert live.now == 0
        assert model.autoencoder.decoder.conv_in.weight.dtype == torch.float32
    assert at_rest(model)


def test_the_ladder_ends() -> None:
    assert [next_below(plan) for plan in LADDER] == [*LADDER[1:], None]
