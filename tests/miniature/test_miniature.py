"""The bundled miniature shows what the prompt says: the proof that conditioning, samplers, time and decoding agree."""

import functools
from pathlib import Path

import pytest
import torch
from torch import Tensor

from sd_t2v.benchmarks.layouts import Write, as_in_2023, as_safetensors, as_shards, write_diffusers
from sd_t2v.miniature.evaluate import count_shares, judge_videos, judge_without_prompt
from sd_t2v.miniature.recipe import MINIATURE, MODEL_FOLDER
from sd_t2v.miniature.world import COLOURS, DIRECTIONS, HELD_OUT, LABELS, SHAPES
from sd_t2v.modelscope.checkpoints.load import load_model
from sd_t2v.modelscope.config import read_config, write_config
from sd_t2v.modelscope.memory.residency import Residency
from sd_t2v.modelscope.model import Model
from sd_t2v.modelscope.pipeline import generate
from sd_t2v.modelscope.request import VideoRequest
from sd_t2v.modelscope.sampling.catalogue import get_sampler, sampler_names
from sd_t2v.tests.helpers.support import CPU

MAX_WEIGHTS = 20_000_000
TWO_STEPS = VideoRequest(prompt="a red ball moving left", width=64, height=64, frames=8, steps=2, seed=3)


@functools.cache
def miniature() -> Model:
    return load_model(MODEL_FOLDER, CPU)


@functools.cache
def its_video() -> Tensor:
    return generate(Residency(miniature()), TWO_STEPS)


def test_is_small_enough_to_ship_and_described_by_the_recipe() -> None:
    assert sum(path.stat().st_size for path in MODEL_FOLDER.iterdir()) < MAX_WEIGHTS
    assert read_config(MODEL_FOLDER) == MINIATURE


@pytest.mark.parametrize("write", [as_safetensors, as_shards, as_in_2023], ids=lambda f: f.__name__)
def test_in_every_layout_it_is_the_same(tmp_path: Path, write: Write) -> None:
    """Its weights, and so its videos, which the judge has seen."""
    folder = write_diffusers(tmp_path / "model", write, miniature())
    # diffusers' own files cannot say that the stem has 4 heads.
    write_config(folder, MINIATURE)
    other = load_model(folder, CPU)
    assert other.config.unet == miniature().config.unet
    for part in ("text_encoder", "unet", "autoencoder"):
        expected = getattr(miniature(), part).state_dict()
        found = getattr(other, part).state_dict()
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert torch.equal(generate(Residency(other), TWO_STEPS), its_video())


def assert_passes(found: dict[str, float]) -> None:
    assert found["colour"] >= 0.98
    assert found["shape"] >= 0.90
    assert found["direction"] >= 0.95
    assert found["all"] >= 0.85


@pytest.mark.parametrize("name", sampler_names())
def test_every_sampler_passes_at_its_default_steps(name: str) -> None:
    labels = [label for label in LABELS if label not in HELD_OUT][4::8]
    assert_passes(
        count_shares(judge_videos(miniature(), labels, (3,), sampler=name, steps=get_sampler(name).default_steps))
    )


def test_without_a_prompt_no_class_dominates() -> None:
    seeds = range(16)
    # What the model has learnt shows within few steps of a quick sampler, too.
    seen = judge_without_prompt(miniature(), seeds, sampler="DPM++ 2M", steps=8)
    for names in (COLOURS, SHAPES, DIRECTIONS):
        assert max(seen[name] for name in names) <= len(seeds) / 2
