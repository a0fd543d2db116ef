"""The estimate beside counted bytes, and the plans chosen by it."""

import dataclasses
import functools

import pytest
import torch

from sd_t2v.modelscope.config import ModelConfig, UNetConfig
from sd_t2v.modelscope.device import Place
from sd_t2v.modelscope.errors import OutOfMemory, RequestError
from sd_t2v.modelscope.memory.batching import positions_per_weight
from sd_t2v.modelscope.memory.choice import Limits, choose_plan
from sd_t2v.modelscope.memory.estimate import (
    TOKENS,
    Clip,
    estimate_bytes,
    estimate_decoder,
    estimate_deep_levels,
    estimate_step,
)
from sd_t2v.modelscope.memory.lora_deltas import NO_DELTAS, Delta, Deltas, LoraDeltas
from sd_t2v.modelscope.memory.placing import place_weights
from sd_t2v.modelscope.memory.plan import BALANCED, FAST, LADDER, SMALL, SMALLEST, Plan
from sd_t2v.modelscope.memory.residency import use_weights
from sd_t2v.modelscope.model import Model, outline
from sd_t2v.modelscope.network.deep_cache import DeepFeatureCache
from sd_t2v.modelscope.network.unet3d import PassOptions, UNet3D
from sd_t2v.modelscope.request import VideoRequest
from sd_t2v.tests.helpers.live_bytes import peak_bytes
from sd_t2v.tests.helpers.support import CPU

META = {dtype: Place(torch.device("meta"), dtype) for dtype in (torch.float16, torch.float32)}
MID = UNetConfig(dim=96, head_dim=32)


@functools.cache
def network(*, full: bool) -> UNet3D:
    """At rest in a precision that is none of the device's, so that weights that come are counted."""
    with torch.device("meta"):
        return UNet3D(UNetConfig() if full else MID).double().eval().requires_grad_(requires_grad=False)


def counted(  # noqa: PLR0913 - the last three are named where they are given
    unet: UNet3D,
    plan: Plan,
    clip: Clip,
    place: Place,
    *,
    cache: DeepFeatureCache | None = None,
    tokens: int = TOKENS,
    deltas: Deltas = NO_DELTAS,
) -> int:
    """Of two steps, if what the first one's deep levels return is to be kept for the second."""
    x = torch.empty(1, unet.config.in_dim, *clip, dtype=place.dtype, device="meta")
    text = torch.empty(1, tokens, unet.config.context_dim, dtype=place.dtype, device="meta")

    def step() -> object:
        with use_weights(unet, plan, place, deltas):
            contexts = [unet.text_context(text) for _ in range(2)]
            for _ in range(2 if cache else 1):
                timesteps = torch.empty(1, device="meta")
                options = PassOptions(plan.chunk_budget, plan.batch_cfg, cache)
                noise = unet.predict_noise(x, timesteps, contexts, options)
            return noise

    return peak_bytes(step)[0]


CASES = [
    *((False, clip, dtype) for clip in (Clip(24, 32, 32), Clip(1, 40, 72), Clip(30, 24, 24)) for dtype in META),
    (True, Clip(24, 32, 32), torch.float16),
]


@pytest.mark.parametrize("plan", LADDER, ids=lambda plan: plan.name)
@pytest.mark.parametrize(("full", "clip", "dtype"), CASES)
def test_an_estimate_is_at_most_a_tenth_above_what_is_counted(
    full: bool, clip: Clip, dtype: torch.dtype, plan: Plan
) -> None:
    unet, place = network(full=full), META[dtype]
    ratio = estimate_step(unet, plan, clip, place) / counted(unet, plan, clip, place)
    assert 1 <= ratio <= 1.15


@pytest.mark.parametrize("plan", [FAST, BALANCED], ids=lambda plan: plan.name)
def test_weights_in_eight_bits_are_not_underestimated(plan: Plan) -> None:
    clip, place, plan = Clip(24, 32, 32), META[torch.float16], dataclasses.replace(plan, eight_bits=True)
    ratio = estimate_step(network(full=True), plan, clip, place) / counted(network(full=True), plan, clip, place)
    assert 1 <= ratio <= 1.15


@functools.cache
def lora(rank: int = 32) -> dict[str, list[Delta]]:
    """Of the whole full-size network."""
    weights = ((name, x) for name, x in network(full=True).named_parameters() if x.ndim > 1)
    return {name: [_delta(len(x), x[0].numel(), rank)] for name, x in weights}


def _delta(rows: int, columns: int, rank: int) -> Delta:
    up, down = ((rows, rank), (rank, columns))
    return Delta(*(torch.empty(shape, dtype=torch.float16, device="meta") for shape in (up, down)))


WITH_LORAS = [*((plan, False) for plan in LADDER), (FAST, True)]


@pytest.mark.parametrize(("plan", "eight_bits"), WITH_LORAS, ids=[f"{plan.name} {eight}" for plan, eight in WITH_LORAS])
def test_what_a_lora_takes_is_not_underestimated(plan: Plan, eight_bits: bool) -> None:
    """One frame, of which activations hardly count."""
    unet, place, clip = network(full=True), META[torch.float16], Clip(1, 8, 8)
    plan = dataclasses.replace(plan, eight_bits=eight_bits)
    estimate = estimate_step(unet, plan, clip, place, deltas=lora())
    found = counted(unet, plan, clip, place, deltas=lora())
    assert 1 <= estimate / found <= (1.3 if eight_bits or plan.streamed else 1.1)


def test_a_lora_counts_in_the_choice() -> None:
    clip = Clip(24, 32, 32)
    bare = [estimate_bytes(model(), plan, clip) for plan in LADDER]
    applied = [estimate_bytes(model(), plan, clip, loras=LoraDeltas(unet=lora())) for plan in LADDER]
    assert applied[2] > bare[2] and applied[3] > bare[3] and applied[:2] == bare[:2]


@pytest.mark.parametrize("plan", LADDER, ids=lambda plan: plan.name)
def test_long_prompts_are_not_underestimated(plan: Plan) -> None:
    clip, place, tokens = Clip(8, 32, 32), META[torch.float16], 10 * TOKENS
    estimate = estimate_step(network(full=False), plan, clip, place, tokens)
    assert 1 <= estimate / counted(network(full=False), plan, clip, place, tokens=tokens) <= 1.15


def test_the_longer_prompt_counts() -> None:
    short, long, negative = (
        choose_plan(model(), VideoRequest(seed=0, **prompts), Limits(free=None)).needs
        for prompts in ({}, {"prompt": "a red ball, " * 200}, {"negative_prompt": "a red ball, " * 200})
    )
    assert short < long == negative


@pytest.mark.parametrize("plan", LADDER, ids=lambda plan: plan.name)
def test_a_draft_is_not_underestimated(plan: Plan) -> None:
    clip, place = Clip(24, 32, 32), META[torch.float16]
    estimate = estimate_step(network(full=False), plan, clip, place) + estimate_deep_levels(
        network(full=False), clip, place
    )
    assert 1 <= estimate / counted(network(full=False), plan, clip, place, cache=DeepFeatureCache()) <= 1.4


def test_streamed_weights_never_take_more_than_600_megabytes() -> None:
    """One frame, of which activations hardly count."""
    for plan in (SMALL, SMALLEST):
        assert counted(network(full=True), plan, Clip(1, 8, 8), META[torch.float16]) <= 300e6


@functools.cache
def model() -> Model:
    return outline(ModelConfig(), META[torch.float16], META[torch.float16])


@pytest.mark.parametrize("plan", LADDER, ids=lambda plan: plan.name)
@pytest.mark.parametrize("size", [(32, 32), (40, 72), (72, 128)])
def test_decoding_is_not_underestimated(size: tuple[int, int], plan: Plan) -> None:
    autoencoder = outline(ModelConfig(), META[torch.float32], META[torch.float32]).autoencoder
    decoding = torch.nn.ModuleList([autoencoder.post_quant_conv, autoencoder.decoder])
    z = torch.empty(1, 4, *size, dtype=torch.float16, device="meta")

    def decode() -> object:
        with place_weights(decoding, META[torch.float16]):
            return autoencoder.decode(z, plan.chunk_budget)

    estimate = estimate_decoder(autoencoder, plan, Clip(1, *size), META[torch.float16])
    assert 1 <= estimate / peak_bytes(decode)[0] <= 1.7


@pytest.mark.parametrize("plan", LADDER, ids=lambda plan: plan.name)
@pytest.mark.parametrize("size", [(32, 32), (72, 128)])
def test_encoding_takes_less_than_decoding(size: tuple[int, int], plan: Plan) -> None:
    autoencoder = outline(ModelConfig(), META[torch.float32], META[torch.float32]).autoencoder
    frame = torch.empty(1, 3, 8 * size[0], 8 * size[1], dtype=torch.float16, device="meta")

    def encode() -> object:
        with place_weights(autoencoder.encoding_part(), META[torch.float16]):
            return autoencoder.frames_to_latents(frame, plan.chunk_budget)

    assert peak_bytes(encode)[0] <= estimate_decoder(autoencoder, plan, Clip(1, *size), META[torch.float16])


def request(**changes: int) -> VideoRequest:
    return VideoRequest(**{"width": 256, "height": 256, "frames": 24, "seed": 1, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("gigabytes", "frames", "plan"),
    [
        (24, 24, FAST),
        (8, 24, FAST),
        (3.5, 24, BALANCED),
        (2, 24, SMALL),
        (1.2, 24, SMALL),
        (0.8, 24, SMALLEST),
        (4.1, 125, BALANCED),
        (2, 125, SMALL),
        (1.5, 125, SMALLEST),
        (2.25, 250, SMALLEST),
    ],
)
def test_free_memory_decides(gigabytes: float, frames: int, plan: Plan) -> None:
    choice = choose_plan(model(), request(frames=frames), Limits(int(gigabytes * 1e9)))
    assert choice.plan == plan
    assert choice.needs <= gigabytes * 1e9
    assert str(choice).startswith("needs about ") and f" of {gigabytes:.1f} GB free (plan: {plan.name})" in str(choice)


def test_the_hosts_switches_and_the_settings_have_the_last_word() -> None:
    plenty = 80_000_000_000
    assert choose_plan(model(), request(), Limits(plenty, first=SMALL)).plan == SMALL
    assert choose_plan(model(), request(), Limits(plenty, forced=SMALLEST)).plan == SMALLEST
    assert choose_plan(model(), request(), Limits(plenty, budget=1_500_000_000)).plan == SMALL
    assert choose_plan(model(), request(), Limits(1_500_000_000, budget=plenty)).plan == SMALL
    assert choose_plan(model(), request(), Limits(100, forced=FAST)).plan == FAST


def test_nothing_is_claimed_of_memory_that_nobody_knows() -> None:
    choice = choose_plan(model(), request(), Limits(None))
    assert choice.plan == BALANCED and "free" not in str(choice)


@pytest.mark.parametrize(("frames", "side", "plan"), [(8, 128, FAST), (16, 192, FAST), (24, 256, BALANCED)])
def test_a_cpu_batches_both_passes_where_weights_cost_more_than_activations(frames: int, side: int, plan: Plan) -> None:
    wanted = request(frames=frames, width=side, height=side)
    assert choose_plan(outline(ModelConfig(), CPU, CPU), wanted, Limits(10**11)).plan == plan
    assert choose_plan(model(), wanted, Limits(10**11)).plan == FAST


def test_positions_per_weight() -> None:
    """With one level, all of them; with the levels below, as many as their share of the weights leaves."""
    with torch.device("meta"):
        flat, deep = (UNet3D(UNetConfig(dim=64, dim_mult=mult, num_res_blocks=1)) for mult in ([1], [1, 1]))
    clip = Clip(3, 8, 6)
    assert positions_per_weight(flat, clip) == clip.pixels
    assert clip.pixels / 4 < positions_per_weight(deep, clip) < clip.pixels
    assert positions_per_weight(deep, Clip(6, 8, 6)) == 2 * positions_per_weight(deep, clip)


def test_what_does_not_fit_is_refused_with_what_would() -> None:
    with pytest.raises(OutOfMemory, match=r"There is room for (\d+) frames of this size") as caught:
        choose_plan(model(), request(frames=250), Limits(1_000_000_000))
    fitting = int(str(caught.value).split("room for ")[1].split()[0])
    limits = Limits(1_000_000_000)
    assert choose_plan(model(), request(frames=fitting), limits).plan == SMALLEST
    with pytest.raises(OutOfMemory):
        choose_plan(model(), request(frames=fitting + 1), limits)
    with pytest.raises(OutOfMemory, match="Ask for a smaller size"):
        choose_plan(model(), request(), Limits(300_000_000))


@pytest.mark.parametrize("budget", [0, -1])
def test_a_budget_of_nothing_is_refused(budget: int) -> None:
    with pytest.raises(RequestError, match="more than 0"):
        choose_plan(model(), request(), Limits(10**10, budget=budget))


def test_needs_grow_with_frames_and_shrink_down_the_ladder() -> None:
    needs = [[estimate_bytes(model(), plan, Clip(frames, 32, 32)) for frames in (8, 24, 125)] for plan in LADDER]
    assert all(row == sorted(row) for row in needs)
    assert all(list(column) == sorted(column, reverse=True) for column in list(zip(*needs, strict=True))[:2])
