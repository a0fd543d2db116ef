"""Half precision: close to single precision at random weights, and good enough for the judge."""

import pytest
import torch

from sd_t2v.benchmarks.cases import random_unet
from sd_t2v.miniature.evaluate import count_shares, judge_videos
from sd_t2v.miniature.recipe import MODEL_FOLDER
from sd_t2v.miniature.world import LABELS
from sd_t2v.modelscope.checkpoints.load import load_model
from sd_t2v.modelscope.config import UNetConfig
from sd_t2v.modelscope.device import Place
from sd_t2v.modelscope.memory.plan import LADDER, Plan
from sd_t2v.modelscope.network.unet3d import PassOptions

CONFIG = UNetConfig(dim=64, head_dim=32, context_dim=64)


@pytest.mark.parametrize("plan", LADDER, ids=[plan.name for plan in LADDER])
@torch.inference_mode()
def test_half_precision_points_where_single_precision_does(plan: Plan) -> None:
    unet = random_unet(CONFIG)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1, 4, 5, 12, 16, generator=generator)
    texts = torch.randn(2, 1, 77, 64, generator=generator)

    def predict(dtype: torch.dtype) -> torch.Tensor:
        network = unet.to(dtype)
        contexts = [network.text_context(text.to(dtype)) for text in texts]
        t = torch.tensor([700])
        options = PassOptions(plan.chunk_budget, plan.batch_cfg)
        return torch.cat(network.predict_noise(x.to(dtype), t, contexts, options)).float()

    single, half = predict(torch.float32), predict(torch.float16)
    assert torch.nn.functional.cosine_similarity(single.flatten(), half.flatten(), dim=0) >= 0.999


@pytest.mark.parametrize(("dtype", "every"), [(torch.bfloat16, 12), (torch.float16, 48)], ids=["bfloat16", "float16"])
def test_the_miniature_passes_its_judge_in_half_precision(dtype: torch.dtype, every: int) -> None:
    """CPUs take twenty times as long in float16 as in the others: fewer clips."""
    model = load_model(MODEL_FOLDER, Place(torch.device("cpu"), dtype))
    found = count_shares(judge_videos(model, LABELS[::every], (3,), sampler="DPM++ 2M", steps=5))
    assert found == {"colour": 1, "shape": 1, "direction": 1, "all": 1}
