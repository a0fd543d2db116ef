"""One UNet forward pass: ours, diffusers' and modelscope's in turn, so that the machine's moods hit all alike."""

import statistics
import time
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from ..modelscope.config import UNetConfig
from ..modelscope.unet3d import UNet3D
from .rivals import diffusers_unet, modelscope_unet

HEADER = ("network", "median s", "fastest s", "slowest s", "ours is faster by", "largest difference from ours")


class Case(NamedTuple):
    """A network and the size of its input [1, 4, frames, height, width]."""

    config: UNetConfig
    size: tuple[int, int, int]
    full_size: bool = False


CASES = {
    "mid-size, 16 frames of 32 x 32 latents": Case(UNetConfig(dim=96, head_dim=32), (16, 32, 32)),
    "full size, 8 frames of 16 x 16 latents": Case(UNetConfig(), (8, 16, 16), full_size=True),
}


@torch.inference_mode()
def measure(case: Case, runs: int) -> list[list[str]]:
    """A row per network, ours first."""
    unet = random_unet(case.config)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1, case.config.in_dim, *case.size, generator=generator)
    text = torch.randn(1, 77, case.config.context_dim, generator=generator)
    t, context, state = torch.tensor([500]), unet.text_context(text), unet.state_dict()
    original, diffusers = modelscope_unet(case.config, state), diffusers_unet(case.config, state)
    networks: dict[str, Callable[[], Tensor]] = {
        "this project": lambda: unet(x, t, context),
        "diffusers": lambda: diffusers(x, t, text, return_dict=False)[0],
        "modelscope": lambda: original(x, t, text),
    }
    outputs = {name: run() for name, run in networks.items()}
    seconds: dict[str, list[float]] = {name: [] for name in networks}
    for _ in range(runs):
        for name, run in networks.items():
            start = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - start)
    return [_row(name, seconds, outputs) for name in networks]


def random_unet(config: UNetConfig) -> UNet3D:
    """Our network with random weights that keep activations near unit size."""
    with torch.device("meta"):
        unet = UNet3D(config)
    generator = torch.Generator().manual_seed(0)
    state = {name: _random(value, generator) for name, value in unet.state_dict().items()}
    unet.load_state_dict(state, assign=True)
    return unet.eval()


def _random(like: Tensor, generator: torch.Generator) -> Tensor:
    if like.ndim < 2:
        return torch.randn(like.shape, generator=generator).mul_(0.1).add_(1)
    return torch.randn(like.shape, generator=generator).mul_(like[0].numel() ** -0.5)


def _row(name: str, seconds: dict[str, list[float]], outputs: dict[str, Tensor]) -> list[str]:
    mine, its = seconds["this project"], seconds[name]
    ratios = [theirs / ours for theirs, ours in zip(its, mine, strict=True)]
    difference = float((outputs[name] - outputs["this project"]).abs().max())
    figures = (statistics.median(its), min(its), max(its))
    return [name, *(f"{value:.2f}" for value in figures), f"{statistics.median(ratios):.2f}x", f"{difference:.1e}"]
