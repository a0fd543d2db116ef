"""The training script from start to end, at a size that proves nothing but that it runs, resumes and exports."""

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch

from sd_t2v.miniature.recipe import MINIATURE, Recipe
from sd_t2v.miniature.stages import UNetStage
from sd_t2v.miniature.train import train
from sd_t2v.modelscope.checkpoints.load import load_model
from sd_t2v.tests.helpers.support import CPU

TINY: dict[str, Any] = {
    **dict.fromkeys(("text_steps", "autoencoder_steps", "unet_steps"), 2),
    "clips_per_label": 1,
    "clip_frames": 4,
    "long_clips": 0.0,
    "unet_batch": 1,
    "checkpoint_every": 1,
}


def weights(folder: Path) -> torch.Tensor:
    model = load_model(folder, CPU)
    assert model.config == MINIATURE
    return model.unet.out[2].weight


def test_trains_resumes_and_exports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe, cpu = Recipe(**TINY), torch.device("cpu")
    train(tmp_path / "whole", tmp_path / "a", recipe, cpu)
    loss, calls = UNetStage.loss, itertools.count()

    def interrupted(stage: UNetStage, *arguments: Any) -> torch.Tensor:
        if next(calls) >= recipe.shards:
            raise KeyboardInterrupt
        return loss(stage, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(UNetStage, "loss", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train(tmp_path / "cut", tmp_path / "b", recipe, cpu)
    train(tmp_path / "cut", tmp_path / "b", recipe, cpu)
    assert torch.equal(weights(tmp_path / "a"), weights(tmp_path / "b"))
