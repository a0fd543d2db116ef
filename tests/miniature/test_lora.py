"""The miniature's LoRA shows what the miniature alone does not know, and leaves the rest as it was."""

from pathlib import Path

import pytest
import torch

from sd_t2v.miniature.evaluate import count_shares, request
from sd_t2v.miniature.judge import judge
from sd_t2v.miniature.recipe import LORA_FILE, MODEL_FOLDER, LoraRecipe, Recipe
from sd_t2v.miniature.train_lora import train_lora
from sd_t2v.miniature.world import LABELS, NEW_LABELS, NEW_SHAPE, Label, draw
from sd_t2v.modelscope.checkpoints.load import load_model
from sd_t2v.modelscope.lora.join_loras import join_loras
from sd_t2v.modelscope.lora.lora_file import read_lora
from sd_t2v.modelscope.memory.lora_deltas import LoraDeltas
from sd_t2v.modelscope.memory.plan import BALANCED, SMALLEST, Plan
from sd_t2v.modelscope.memory.residency import Residency
from sd_t2v.modelscope.model import Model
from sd_t2v.modelscope.pipeline import generate
from sd_t2v.modelscope.run_options import RunOptions
from sd_t2v.tests.helpers.support import CPU

STEPS = 5


@pytest.fixture(scope="module")
def model() -> Model:
    return load_model(MODEL_FOLDER, CPU)


@pytest.fixture(scope="module")
def lora(model: Model) -> LoraDeltas:
    return read_lora(LORA_FILE, model)


def clip(
    model: Model, label: Label, loras: list[LoraDeltas], plan: Plan = BALANCED, steps: int = STEPS
) -> torch.Tensor:
    wish = request(model, label.caption, 3, sampler="DPM++ 2M", steps=steps)
    return generate(Residency(model), wish, RunOptions(plan=plan, loras=join_loras(loras)))


def test_is_small_enough_to_ship() -> None:
    assert LORA_FILE.stat().st_size < 400_000


def test_with_it_bars_appear_and_without_it_none(model: Model, lora: LoraDeltas) -> None:
    labels = NEW_LABELS[::6]
    changed = count_shares((label, judge(clip(model, label, [lora]))) for label in labels)
    assert changed == {"colour": 1, "shape": 1, "direction": 1, "all": 1}
    assert all(judge(clip(model, label, [lora.times(0, 0)])).shape != NEW_SHAPE for label in labels[:1])


def test_other_prompts_still_pass(model: Model, lora: LoraDeltas) -> None:
    found = count_shares((label, judge(clip(model, label, [lora]))) for label in LABELS[::17])
    assert found == {"colour": 1, "shape": 1, "direction": 1, "all": 1}


def test_afterwards_nothing_has_changed(model: Model, lora: LoraDeltas) -> None:
    before = clip(model, LABELS[0], [], steps=2)
    assert not torch.equal(clip(model, LABELS[0], [lora], SMALLEST, steps=2), before)
    assert torch.equal(clip(model, LABELS[0], [], steps=2), before)


@pytest.mark.parametrize("label", NEW_LABELS[::7], ids=str)
def test_the_judge_knows_bars(label: Label) -> None:
    drawn = draw(label, 8, torch.Generator().manual_seed(1))
    verdict = judge((drawn.permute(0, 2, 3, 1) * 255).to(torch.uint8))
    assert all(verdict.agrees(label).values())


def test_trains_and_exports(tmp_path: Path, model: Model) -> None:
    """At a size that proves nothing but that it runs."""
    base = Recipe(shards=1, clips_per_label=1, clip_frames=4, long_clips=0.0, unet_batch=1)
    train_lora(tmp_path, tmp_path / "new" / "x.safetensors", LoraRecipe(steps=2, new_share=1, rank=1, base=base))
    found = read_lora(tmp_path / "new" / "x.safetensors", model)
    shipped = read_lora(LORA_FILE, model)
    assert found.unet.keys() == shipped.unet.keys() and found.text.keys() == shipped.text.keys()
    assert any(bool(delta.up.any()) for deltas in found.unet.values() for delta in deltas)
