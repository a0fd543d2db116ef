"""On a CUDA device: the numbers of the CPU, and all of its memory given back. Skipped where there is none."""

from pathlib import Path

import pytest
import torch

from sd_t2v.modelscope.checkpoints.load import load_model
from sd_t2v.modelscope.device import Place
from sd_t2v.modelscope.memory.plan import LADDER, Plan
from sd_t2v.modelscope.memory.residency import Residency
from sd_t2v.modelscope.pipeline import generate
from sd_t2v.modelscope.request import VideoRequest
from sd_t2v.tests.helpers.support import write_model_folder

pytestmark = pytest.mark.gpu
PLANS = pytest.mark.parametrize("plan", LADDER, ids=[plan.name for plan in LADDER])
CARD, CPU = torch.device("cuda"), torch.device("cpu")
ONE_STEP = VideoRequest(prompt="a red ball", steps=1, frames=3, width=64, height=40, cfg_scale=9, seed=7)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The golden networks as a model."""
    return write_model_folder(tmp_path_factory.mktemp("small") / "model")


@PLANS
def test_a_guided_step_on_the_card_is_that_of_the_cpu(
    plan: Plan, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Both in the single precision that they say: convolutions on newer cards round to 10 bits unless told not to.
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    found, expected = (
        generate(Residency(load_model(folder, Place(device, torch.float32))), ONE_STEP, plan=plan)
        for device in (CARD, CPU)
    )
    assert int((found.int() - expected.int()).abs().max()) <= 1


@pytest.mark.parametrize("plan", [plan for plan in LADDER if plan.streamed], ids=lambda plan: plan.name)
def test_a_streamed_run_gives_all_of_the_cards_memory_back(plan: Plan, folder: Path) -> None:
    model = load_model(folder, Place(CARD, torch.float16))
    # Libraries take their workspaces once, and keep them.
    generate(Residency(model), ONE_STEP, plan=plan)
    before = torch.cuda.memory_allocated(CARD)
    torch.cuda.reset_peak_memory_stats(CARD)
    generate(Residency(model), ONE_STEP, plan=plan)
    assert torch.cuda.max_memory_allocated(CARD) > before
    assert torch.cuda.memory_allocated(CARD) == before
