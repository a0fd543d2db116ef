"""Measures guided steps of our network and the rivals' in turn, so that changes of the machine's speed affect all.

Each case runs in a separate process: what a process did before changes its memory allocation, and thereby the ratios.
"""

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from ..modelscope.config import UNetConfig
from ..modelscope.memory.plan import BALANCED
from ..modelscope.network.deep_cache import DeepFeatureCache
from ..modelscope.network.unet3d import PassOptions, UNet3D
from .rivals import diffusers_unet, extension_unet, modelscope_unet
from .weights import random_weights

HEADER = ("network", "median s", "fastest s", "slowest s", "ours is faster by", "TFLOP", "largest difference from ours")
OURS = "this project"
Step = Callable[[], Tensor]
"""Returns the noise under both texts: [2, 4, f, h, w]."""


class Case(NamedTuple):
    """A network and the size of its input [1, 4, frames, height, width]."""

    config: UNetConfig
    size: tuple[int, int, int]
    full_size: bool = False


CASES = {
    "mid-size, 16 frames of 32 x 32 latents": Case(UNetConfig(dim=96, head_dim=32), (16, 32, 32)),
    "full size, 8 frames of 16 x 16 latents": Case(UNetConfig(), (8, 16, 16), full_size=True),
}


def measure(name: str, runs: int, extension: Path | None) -> list[list[str]]:
    """Return a row per network, ours first. extension: a checkout of the 2023 extension, if it is to take part."""
    command = [sys.executable, "-m", __spec__.name, name, str(runs), *([str(extension)] if extension else [])]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    rows: list[list[str]] = json.loads(output.splitlines()[-1])
    return rows


@torch.inference_mode()
def compare(case: Case, runs: int, extension: Path | None) -> list[list[str]]:
    """Measure all networks in this process, and return a row for each."""
    steps = _steps(case, extension)
    outputs, flops = {}, {}
    for name, step in steps.items():
        with FlopCounterMode(display=False) as counter:
            outputs[name] = step()
        flops[name] = counter.get_total_flops()
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(runs):
        for name, step in steps.items():
            start = time.perf_counter()
            step()
            seconds[name].append(time.perf_counter() - start)
    return [_row(name, seconds, outputs, flops[name]) for name in steps]


def _steps(case: Case, extension: Path | None) -> dict[str, Step]:
    """Return a guided step of each network, as in its own pipeline: diffusers takes both texts in one batch."""
    unet = random_unet(case.config)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1, case.config.in_dim, *case.size, generator=generator)
    texts = [torch.randn(1, 77, case.config.context_dim, generator=generator) for _ in range(2)]
    t, contexts, state = torch.tensor([500]), [unet.text_context(text) for text in texts], unet.state_dict()
    options = PassOptions(BALANCED.chunk_budget)
    drafted = options._replace(cache=DeepFeatureCache())
    unet.predict_noise(x, t, contexts, drafted)
    twice, both, diffusers = torch.cat([x, x]), torch.cat(texts), diffusers_unet(case.config, state)
    steps: dict[str, Step] = {
        OURS: lambda: torch.cat(unet.predict_noise(x, t, contexts, options)),
        "this project, a step between in draft mode": lambda: torch.cat(unet.predict_noise(x, t, contexts, drafted)),
        "diffusers": lambda: diffusers(twice, t, both, return_dict=False)[0],
    }
    originals: dict[str, nn.Module] = {"modelscope": modelscope_unet(case.config, state)}
    if extension:
        originals["the 2023 extension"] = extension_unet(extension, case.config, state)
    for name, original in originals.items():
        steps[name] = lambda network=original: torch.cat([network(x, t, text) for text in texts])  # type: ignore[misc]
    return steps


def random_unet(config: UNetConfig) -> UNet3D:
    """Return our network with random weights."""
    with torch.device("meta"):
        unet = UNet3D(config)
    unet.load_state_dict(random_weights(unet), assign=True)
    return unet.eval()


def _row(name: str, seconds: dict[str, list[float]], outputs: dict[str, Tensor], flops: int) -> list[str]:
    mine, its = seconds[OURS], seconds[name]
    ratios = [theirs / ours for theirs, ours in zip(its, mine, strict=True)]
    difference = float((outputs[name] - outputs[OURS]).abs().max())
    figures = (statistics.median(its), min(its), max(its))
    times = [f"{value:.2f}" for value in figures]
    return [name, *times, f"{statistics.median(ratios):.2f}x", f"{flops / 1e12:.3f}", f"{difference:.1e}"]


if __name__ == "__main__":
    case_name, number, *checkout = sys.argv[1:]
    found = compare(CASES[case_name], int(number), Path(checkout[0]) if checkout else None)
    sys.stdout.write(json.dumps(found) + "\n")
