"""The judge must be right on drawn clips and say no to everything else; judging models rests on it."""

import pytest
import torch
from torch import Tensor

from sd_t2v.miniature.judge import Verdict, judge
from sd_t2v.miniature.world import COLOURS, DIRECTIONS, HELD_OUT, LABELS, SHAPES, SIZE, TRAINED, Label, draw

NOTHING = Verdict(None, None, None)


def clip(label: Label, frames: int, seed: int) -> Tensor:
    drawn = draw(label, frames, torch.Generator().manual_seed(seed))
    return (drawn.permute(0, 2, 3, 1) * 255).to(torch.uint8)


def test_the_world_has_enough_in_it() -> None:
    assert len(COLOURS) >= 4
    assert len(SHAPES) >= 3
    assert set(DIRECTIONS) == {"left", "right", "up", "down"}
    assert len(LABELS) == len(COLOURS) * len(SHAPES) * 4
    assert len(HELD_OUT) >= 4
    assert not HELD_OUT & set(TRAINED)
    for names in ("colour", "shape", "direction"):
        assert {getattr(label, names) for label in TRAINED} == {getattr(label, names) for label in LABELS}


@pytest.mark.parametrize("frames", [8, 16])
def test_right_on_drawn_clips(frames: int) -> None:
    marks = [judge(clip(label, frames, seed)).agrees(label) for label in LABELS for seed in range(3)]
    for part in ("colour", "shape", "direction"):
        assert sum(mark[part] for mark in marks) >= 0.99 * len(marks)


def test_swapped_labels_are_wrong() -> None:
    for index, label in enumerate(LABELS):
        verdict = judge(clip(label, 8, index))
        other = LABELS[(index + 17) % len(LABELS)]
        agreed = verdict.agrees(other)
        assert agreed == {name: getattr(label, name) == value for name, value in vars(other).items()}
        assert not all(agreed.values())


def test_noise_and_nothing_are_no_shape() -> None:
    generator = torch.Generator().manual_seed(0)
    assert judge(torch.randint(0, 256, (8, SIZE, SIZE, 3), generator=generator, dtype=torch.uint8)) == NOTHING
    assert judge(torch.full((8, SIZE, SIZE, 3), 200, dtype=torch.uint8)) == NOTHING
    assert judge(torch.zeros(8, SIZE, SIZE, 3, dtype=torch.uint8)) == NOTHING


@pytest.mark.parametrize("label", LABELS[::5], ids=str)
def test_stills_have_no_direction(label: Label) -> None:
    still = clip(label, 8, 1)[3:4].expand(8, -1, -1, -1)
    assert judge(still) == Verdict(label.colour, label.shape, None)


@pytest.mark.parametrize("label", LABELS[::5], ids=str)
def test_time_reversed_goes_the_other_way(label: Label) -> None:
    opposite = {"left": "right", "right": "left", "up": "down", "down": "up"}
    assert judge(clip(label, 8, 2).flip(0)).direction == opposite[label.direction]


def test_a_shape_that_jumps_about_has_no_direction() -> None:
    moving = clip(LABELS[0], 8, 1)
    assert judge(moving[[0, 7, 1, 6, 2, 5, 3, 4]]).direction is None


def test_blurred_into_the_background_is_no_shape() -> None:
    moving = clip(LABELS[0], 8, 1).float()
    assert judge((moving * 0.1 + 200).to(torch.uint8)) == NOTHING


def test_shapes_survive_a_little_noise() -> None:
    generator = torch.Generator().manual_seed(0)
    for label in LABELS[::4]:
        frames = clip(label, 8, 5).float()
        noisy = (frames + 6 * torch.randn(frames.shape, generator=generator)).clamp(0, 255).to(torch.uint8)
        assert judge(noisy) == Verdict(**vars(label))
