"""How large the networks, clips and trials are: those of full size, and small ones to rehearse with."""

from collections.abc import Mapping
from typing import NamedTuple

import torch

from ...modelscope.config import AutoencoderConfig, ModelConfig, TextConfig, UNetConfig
from ...modelscope.device import Place
from .rows import CASES, SMALL_CASES, Case


class Sizes(NamedTuple):
    """The place, networks and clips of a benchmark.

    Args:
        place: Device and precision.
        config: Of the model.
        cases: Clips by their names.
        steps: Of a whole run.
        side: Of the matrices that are multiplied.
        copied: Bytes that are copied at once.
        seconds: So long steps are timed.
    """

    place: Place
    config: ModelConfig
    cases: Mapping[str, Case]
    steps: int
    side: int
    copied: int
    seconds: float


def choose_sizes(device: str, *, small: bool) -> Sizes:
    """Return the sizes; half precision on a card, single on a CPU."""
    place = Place(torch.device(device), torch.float16 if device == "cuda" else torch.float32)
    if small:
        return Sizes(place, _small_model(), SMALL_CASES, steps=3, side=512, copied=2**26, seconds=0.1)
    return Sizes(place, ModelConfig(), CASES, steps=25, side=8192, copied=2**31, seconds=2.0)


def _small_model() -> ModelConfig:
    # Modelscope's decoder takes texts of width 1024 only, and the tokenizer needs the whole vocabulary.
    return ModelConfig(
        unet=UNetConfig(dim=32, head_dim=16),
        autoencoder=AutoencoderConfig(ch=32, num_res_blocks=1),
        text=TextConfig(layers=2),
    )
