"""Models in several layouts: the golden networks, and how to know them again."""

from pathlib import Path

import torch
from torch import Tensor

from ...modelscope.checkpoints.find_parts import Library
from ...modelscope.checkpoints.load import load_model
from ...modelscope.model import Model
from .support import CPU, small_config, small_model


def state(model: Model) -> dict[str, Tensor]:
    parts = (model.text_encoder, model.unet, model.autoencoder)
    return {f"{i}.{key}": value for i, part in enumerate(parts) for key, value in part.state_dict().items()}


def assert_golden_weights(path: Path, library: Library | None = None) -> Model:
    model, expected = load_model(path, CPU, library=library), state(small_model())
    assert model.config.unet == small_config().unet
    assert state(model).keys() == expected.keys()
    assert all(torch.equal(value.float(), expected[key]) for key, value in state(model).items())
    return model
