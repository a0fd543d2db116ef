"""Networks and inputs of the benchmark of a processor."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..modelscope.config import UNetConfig
from ..modelscope.device import dtype_name
from ..modelscope.memory.batching import is_quicker_batched
from ..modelscope.memory.estimate import Clip
from ..modelscope.memory.plan import FAST
from ..modelscope.network.deep_cache import DeepFeatureCache
from ..modelscope.network.unet3d import PassOptions, UNet3D
from .rivals import diffusers_unet, extension_unet, modelscope_unet
from .weights import random_weights

OURS, DRAFT, EXTENSION = "this project", "this project, a step that draft mode shortens", "the 2023 extension"
CPU = torch.device("cpu")
MID, FULL = UNetConfig(dim=96, head_dim=32), UNetConfig()
Step = Callable[[], Tensor]
"""Returns the noise under both texts: [2, 4, f, h, w]."""


class Case(NamedTuple):
    """A network and its input.

    Args:
        config: The network's sizes.
        clip: The latents' size.
        dtype: The precision in which all compute.
        used: Whether the process has run the networks at another size before.
    """

    config: UNetConfig
    clip: Clip
    dtype: torch.dtype = torch.float32
    used: bool = False

    @property
    def is_full_size(self) -> bool:
        """True if the network takes some 12 GB of memory."""
        return self.config == FULL

    def __str__(self) -> str:
        size = "full size" if self.is_full_size else "mid-size"
        frames, height, width = self.clip
        process = "used" if self.used else "fresh"
        return f"{size}, {frames} frames of {width} x {height} latents, {dtype_name(self.dtype)}, {process} process"


FEW, MANY = Clip(8, 16, 16), Clip(16, 32, 32)
HALF = torch.bfloat16
CASES = (
    Case(MID, MANY),
    Case(MID, MANY, used=True),
    Case(MID, FEW),
    Case(MID, MANY, HALF),
    Case(FULL, FEW),
    Case(FULL, FEW, used=True),
    Case(FULL, Clip(8, 32, 32)),
    Case(FULL, FEW, HALF),
)


def list_networks(case: Case, extension: Path | None) -> list[str]:
    """Return the networks that can compute in the case's precision."""
    originals = ["modelscope", *([EXTENSION] if extension else [])]
    return [OURS, DRAFT, "diffusers", *(originals if case.dtype == torch.float32 else [])]


def make_steps(case: Case, networks: list[str], extension: Path | None) -> dict[str, Step]:
    """Return a guided step of each of the networks, as in its own pipeline: diffusers takes both texts in one batch."""
    unet = random_unet(case.config).to(case.dtype)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1, case.config.in_dim, *case.clip, generator=generator).to(case.dtype)
    texts = [torch.randn(1, 77, case.config.context_dim, generator=generator).to(case.dtype) for _ in range(2)]
    t, state = torch.tensor([500]), unet.state_dict()

    def ours(cache: DeepFeatureCache | None) -> Step:
        contexts = [unet.text_context(text) for text in texts]
        options = PassOptions(FAST.budget_on(CPU), is_quicker_batched(unet, case.clip), cache)
        if cache:
            unet.predict_noise(x, t, contexts, options)
        return lambda: torch.cat(unet.predict_noise(x, t, contexts, options))

    def diffusers() -> Step:
        twice, both, network = torch.cat([x, x]), torch.cat(texts), diffusers_unet(case.config, state)
        return lambda: network(twice, t, both, return_dict=False)[0]

    def original(network: nn.Module) -> Step:
        return lambda: torch.cat([network(x, t, text) for text in texts])

    makers: dict[str, Callable[[], Step]] = {
        OURS: lambda: ours(None),
        DRAFT: lambda: ours(DeepFeatureCache()),
        "diffusers": diffusers,
        "modelscope": lambda: original(modelscope_unet(case.config, state)),
        EXTENSION: lambda: original(extension_unet(extension or Path(), case.config, state)),
    }
    return {name: makers[name]() for name in networks}


def random_unet(config: UNetConfig) -> UNet3D:
    """Return our network with random weights."""
    with torch.device("meta"):
        unet = UNet3D(config)
    unet.load_state_dict(random_weights(unet), assign=True)
    return unet.eval()
