"""Validation of requests."""

import dataclasses
import math

import pytest
import torch

from sd_t2v.modelscope.errors import RequestError
from sd_t2v.modelscope.request import MAX_SEED, VideoRequest, param


def test_defaults_are_valid() -> None:
    assert VideoRequest(prompt="x").prompt == "x"


def test_seed_minus_one_is_resolved_once() -> None:
    seeds = {VideoRequest().seed for _ in range(5)}
    assert len(seeds) > 1
    assert all(0 <= seed <= MAX_SEED for seed in seeds)
    assert VideoRequest(seed=0).seed == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"width": 0}, "Width must be from 16 to 2048, not 0"),
        ({"height": -64}, "Height must be from 16"),
        ({"width": 100}, "Width must be a multiple of 8, not 100; try 96"),
        ({"frames": 0}, "Frames must be from 1 to 1000, not 0"),
        ({"frames": 10_000}, "Frames must be from 1 to 1000, not 10000"),
        ({"steps": 0}, "Steps must be from 1"),
        ({"steps": 2.5}, "Steps must be a whole number, not 2.5"),
        ({"steps": math.inf}, "Steps must be a whole number"),
        ({"steps": "many"}, "Steps must be a whole number, not 'many'"),
        ({"steps": True}, "Steps must be a whole number"),
        ({"steps": None}, "Steps must be a whole number"),
        ({"cfg_scale": math.nan}, "CFG scale must be a finite number, not nan"),
        ({"cfg_scale": -1}, "CFG scale must be from 0 to 100, not -1"),
        ({"eta": 1.5}, "Eta must be from 0 to 1"),
        ({"cfg_from": 0.6, "cfg_until": 0.5}, "CFG from (0.6) must not be more than CFG until (0.5)"),
        ({"seed": -2}, "Seed must be from -1"),
        ({"seed": 2**40}, "Seed must be from -1 to 4294967295, not 1099511627776"),
        ({"sampler": "Nope"}, "Sampling method 'Nope' is unknown. Choose one of: DDIM, "),
    ],
)
def test_values_that_cannot_be_used_are_named(change: dict[str, object], message: str) -> None:
    with pytest.raises(RequestError) as caught:
        VideoRequest(**change)  # type: ignore[arg-type]
    assert message in str(caught.value)


def test_whole_floats_and_number_strings_are_taken() -> None:
    request = VideoRequest(steps=12.0, width="64", cfg_scale="7.5")  # type: ignore[arg-type]
    assert (request.steps, request.width, request.cfg_scale) == (12, 64, 7.5)
    assert type(request.steps) is int


@pytest.mark.parametrize("value", [None, 3, ["x"]])
def test_a_prompt_is_text(value: object) -> None:
    with pytest.raises(RequestError, match="Prompt must be text"):
        VideoRequest(prompt=value)  # type: ignore[arg-type]


def test_a_recommendation_fills_in_what_is_not_given() -> None:
    request = VideoRequest.recommended({"frames": 8, "steps": 12, "unknown": 1}, {"steps": "40", "debug": True})
    assert (request.frames, request.steps, request.width) == (8, 40, 256)


def test_a_random_seed_does_not_touch_torchs_generator() -> None:
    torch.manual_seed(5)
    first = VideoRequest().seed
    torch.manual_seed(5)
    assert VideoRequest().seed != first


def test_a_new_parameter_is_one_line() -> None:
    @dataclasses.dataclass(kw_only=True)
    class Wider(VideoRequest):
        sharpness: float = param(0.5, "Sharpness", minimum=0, maximum=1)

    assert Wider().sharpness == 0.5
    with pytest.raises(RequestError, match="Sharpness must be from 0 to 1"):
        Wider(sharpness=2)
