"""What is held stays the source, under every sampler, and what is not held is text to video."""

from typing import Any

import pytest
import torch
from torch import Tensor

from sd_t2v.modelscope.conditioning.hold import hold
from sd_t2v.modelscope.conditioning.source import FREE, HELD, NONE, Source, arrange_latents, shrink_mask
from sd_t2v.modelscope.encode_decode import decode, encode_frames
from sd_t2v.modelscope.memory.residency import Residency
from sd_t2v.modelscope.pipeline import generate
from sd_t2v.modelscope.request import VideoRequest
from sd_t2v.modelscope.sampling.catalogue import get_sampler, sampler_names
from sd_t2v.tests.helpers.support import CPU, golden, small_model


def frames() -> Tensor:
    return golden("vid2vid_unet_A")["frames_u8"].to(torch.uint8)


def request(**changes: Any) -> VideoRequest:
    values = {"prompt": "a red ball", "steps": 4, "frames": 3, "width": 64, "height": 64, "seed": 7, "cfg_scale": 3}
    return VideoRequest(**values | changes)


def make(source: Source | None, **changes: Any) -> Tensor:
    return generate(Residency(small_model()), request(**changes), source=source)


def decoded() -> Tensor:
    residency = Residency(small_model())
    return decode(residency, encode_frames(residency, frames()))


@pytest.mark.parametrize("sampler", sampler_names())
def test_nothing_held_is_text_to_video_bit_for_bit(sampler: str) -> None:
    plain = make(None, sampler=sampler)
    assert torch.equal(make(Source(frames(), (0, 1, 2), (FREE,) * 3), sampler=sampler), plain)
    everywhere_new = Source(frames(), (0, 1, 2), (HELD,) * 3, new=torch.ones(1, 64, 64))
    assert torch.equal(make(everywhere_new, sampler=sampler), plain)


@pytest.mark.parametrize("eta", [0.0, 1.0])
@pytest.mark.parametrize("sampler", sampler_names())
def test_everything_held_is_the_source(sampler: str, eta: float) -> None:
    held = Source(frames(), (0, 1, 2), (HELD,) * 3)
    assert torch.equal(make(held, sampler=sampler, eta=eta), decoded())


@pytest.mark.parametrize("sampler", sampler_names())
def test_one_held_frame_is_the_source_and_the_others_are_new(sampler: str) -> None:
    made = make(Source(frames()[1:2], (NONE, 0, NONE), (FREE, HELD, FREE)), sampler=sampler)
    assert torch.equal(made[1], decoded()[1])
    assert not torch.equal(made[0], decoded()[0])
    # The network sees the held frame: the others are not those of text to video.
    assert not torch.equal(made[0], make(None, sampler=sampler)[0])


def test_a_mask_keeps_the_sources_own_bytes_outside_and_changes_what_is_inside() -> None:
    new = torch.zeros(1, 64, 64)
    new[:, 16:48, 8:32] = 1
    made = make(Source(frames(), (0, 1, 2), (HELD,) * 3, new=new))
    outside = (new == 0)[..., None]
    assert torch.equal(made * outside, frames() * outside)
    assert not torch.equal(made[:, 16:48, 8:32], frames()[:, 16:48, 8:32])


def test_soft_edges_mix_both() -> None:
    hard = torch.zeros(1, 64, 64)
    hard[..., 32:] = 1
    soft = hard.clone()
    soft[..., 32:40] = torch.linspace(0.3, 1, 8)
    assert torch.equal(*(shrink_mask(mask, (8, 8)) for mask in (hard, soft)))
    half = Source(frames(), (0, 1, 2), (HELD,) * 3, new=hard)
    new, mixed = make(half), make(Source(frames(), (0, 1, 2), (HELD,) * 3, new=soft))
    expected = torch.lerp(frames()[:, :, 36].float(), new[:, :, 36].float(), soft[0, 0, 36])
    assert float((mixed[:, :, 36].float() - expected).abs().max()) <= 1
    assert not torch.equal(mixed[:, :, 36], new[:, :, 36])


@pytest.mark.parametrize("sampler", ["DPM++ 2M", "DPM++ 2M Karras", "DDIM"])
def test_a_ramp_frees_one_frame_after_the_other_whatever_the_grid(sampler: str) -> None:
    levels = get_sampler(sampler).grid(10)
    source = arrange_latents(
        Source(frames()[:1], (0,) * 5, (0, 0.25, 0.5, 0.75, 1), latents=torch.ones(1, 4, 1, 8, 8)), CPU.device
    )
    denoise = hold(lambda x, _: torch.zeros_like(x), levels, source)
    held = [denoise(torch.zeros(1, 4, 5, 8, 8), level)[0, 0, :, 0, 0].tolist() for level in levels[:-1]]
    # While 10, 9, 8 ... of 10 steps are left: a frame is held as long as its number says; 1 is never.
    assert held == [
        [float(until <= left / 10 and until < 1) for until in (0, 0.25, 0.5, 0.75, 1)] for left in range(10, 0, -1)
    ]


def test_a_small_change_changes_all_latents_that_it_touches() -> None:
    new = torch.zeros(1, 64, 64)
    new[:, 10:12, 3] = 1
    assert shrink_mask(new, (8, 8)).nonzero().tolist() == [[0, 1, 0]]


def test_a_mask_for_each_frame() -> None:
    new = torch.zeros(3, 64, 64)
    new[1] = 1
    made = make(Source(frames(), (0, 1, 2), (HELD,) * 3, new=new))
    assert torch.equal(made[0], frames()[0]) and torch.equal(made[2], frames()[2])
    assert not torch.equal(made[1], frames()[1])
