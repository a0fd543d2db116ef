"""Sizes of the networks, clips and trials: full size, and small ones for a rehearsal."""

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
        config: The model's configuration.
        cases: Clips by their names.
        steps: Number of steps of a whole run.
        side: Side of the matrices that are multiplied.
        copied: Number of bytes that are copied at once.
        seconds: Time after which no more steps are timed.
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
    # Modelscope's decoder takes only texts of width 1024, and the tokenizer needs the whole vocabulary.
    return ModelConfig(
        unet=UNetConfig(dim=32, head_dim=16),
        autoencoder=AutoencoderConfig(ch=32, num_res_blocks=1),
        text=TextConfig(layers=2),
    )
