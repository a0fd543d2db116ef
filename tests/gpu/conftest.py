"""For tests on a CUDA device. GPU_TESTS_ON=cpu rehearses them on the processor, where plans differ just as much."""

import os
from collections.abc import Iterator

import pytest
import torch
from torch import nn

from sd_t2v.benchmarks.weights import random_weights
from sd_t2v.modelscope.config import AutoencoderConfig, ModelConfig, TextConfig, UNetConfig
from sd_t2v.modelscope.device import Place, free_unused
from sd_t2v.modelscope.model import Model, outline

CARD = torch.device(os.environ.get("GPU_TESTS_ON", "cuda"))
ON_CARD = CARD.type == "cuda"
HALF = torch.float16 if ON_CARD else torch.bfloat16


@pytest.fixture(scope="session")
def model() -> Model:
    """A model of random weights in half precision, large enough that plans differ in memory."""
    side = 128 if ON_CARD else 32
    config = ModelConfig(
        unet=UNetConfig(dim=side, head_dim=side // 2, context_dim=64),
        autoencoder=AutoencoderConfig(ch=32),
        text=TextConfig(width=64, heads=2, layers=3),
    )
    model = outline(config, Place(CARD, HALF), Place(CARD, HALF))
    for part in (model.text_encoder, model.unet, model.autoencoder):
        weights = {name: value.half() for name, value in random_weights(part).items()}
        part.load_state_dict(weights, assign=True)
        part.eval().requires_grad_(False)
    # Noise that is predicted small keeps many steps within half precision.
    last = model.unet.out[-1]
    assert isinstance(last, nn.Conv2d)
    last.weight.mul_(0.1)
    return model


@pytest.fixture(autouse=True)
def single_precision(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Float32 as it says: convolutions on newer cards round to 10 bits unless told not to."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    yield
    free_unused(CARD)


def allocated() -> int:
    """Bytes that tensors have on the card."""
    return torch.cuda.memory_allocated(CARD) if ON_CARD else 0
