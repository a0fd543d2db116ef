"""Measures guided steps of our network and the rivals' in turn, so that changes of the machine's speed affect all.

Each case runs in a separate process: what a process did before changes its memory allocation, and thereby the ratios.
"""

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..modelscope.config import UNetConfig
from ..modelscope.device import dtype_name, supports_bfloat16
from ..modelscope.memory.batching import is_quicker_batched
from ..modelscope.memory.estimate import Clip
from ..modelscope.memory.plan import FAST
from ..modelscope.network.deep_cache import DeepFeatureCache
from ..modelscope.network.unet3d import PassOptions, UNet3D
from .flops import count_flops
from .rivals import diffusers_unet, extension_unet, modelscope_unet
from .weights import random_weights

HEADER = ("network", "median s", "fastest s", "slowest s", "times ours", "TFLOP", "of a product's rate", "difference")
OURS = "this project"
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


class Table(NamedTuple):
    """A row for each network, ours first, and a sentence on how far ours is from the machine's limits."""

    rows: list[list[str]]
    limits: str


def measure(case: Case, runs: int, extension: Path | None) -> Table | None:
    """Measure a case in a process of its own; None if the processor lacks its precision.

    extension: a checkout of the 2023 extension, if it is to take part.
    """
    if case.dtype == HALF and not supports_bfloat16(CPU):
        return None
    arguments = [str(CASES.index(case)), str(runs), *([str(extension)] if extension else [])]
    command = [sys.executable, "-m", __spec__.name, *arguments]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return Table(*json.loads(output.splitlines()[-1]))


@torch.inference_mode()
def compare(case: Case, runs: int, extension: Path | None) -> Table:
    """Measure all networks in this process."""
    if case.used:
        other = Case(MID, FEW if case.clip == MANY else MANY, case.dtype)
        for step in _steps(other, extension).values():
            step()
    steps = _steps(case, extension)
    outputs, flops = {}, {}
    for name, step in steps.items():
        outputs[name], flops[name] = count_flops(step)
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(runs):
        for name, step in steps.items():
            seconds[name].append(_seconds(step))
    product, copy = measure_product(case.dtype), measure_copy()
    rates = {name: flops[name] / statistics.median(seconds[name]) / product for name in steps}
    rows = [
        [*_times(seconds[name], seconds[OURS]), f"{flops[name] / 1e12:.3f}", f"{rates[name]:.0%}", f"{gap:.1e}"]
        for name, gap in ((name, float((outputs[name] - outputs[OURS]).abs().max())) for name in steps)
    ]
    return Table(
        [[name, *row] for name, row in zip(steps, rows, strict=True)],
        _describe_limits(case, statistics.median(seconds[OURS]), product, copy),
    )


def _describe_limits(case: Case, seconds: float, product: float, copy: float) -> str:
    """Return a sentence on the machine's rates in floating-point operations and bytes per second, beside ours."""
    with torch.device("meta"):
        unet = UNet3D(case.config)
    weights = sum(x.numel() for x in unet.parameters()) * case.dtype.itemsize
    passes = 1 if is_quicker_batched(unet, case.clip) else 2
    return (
        f"A plain matrix product of 2048 x 2048 runs at {product / 1e12:.3f} TFLOP/s, a plain copy at "
        f"{copy / 1e9:.1f} GB/s. Ours reads its weights at {passes * weights / seconds / copy:.0%} of the copy's rate."
    )


def _steps(case: Case, extension: Path | None) -> dict[str, Step]:
    """Return a guided step of each network, as in its own pipeline: diffusers takes both texts in one batch."""
    unet = random_unet(case.config).to(case.dtype)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1, case.config.in_dim, *case.clip, generator=generator).to(case.dtype)
    texts = [torch.randn(1, 77, case.config.context_dim, generator=generator).to(case.dtype) for _ in range(2)]
    t, contexts, state = torch.tensor([500]), [unet.text_context(text) for text in texts], unet.state_dict()
    options = PassOptions(FAST.budget_on(CPU), is_quicker_batched(unet, case.clip))
    drafted = options._replace(cache=DeepFeatureCache())
    unet.predict_noise(x, t, contexts, drafted)
    twice, both, diffusers = torch.cat([x, x]), torch.cat(texts), diffusers_unet(case.config, state)
    steps: dict[str, Step] = {
        OURS: lambda: torch.cat(unet.predict_noise(x, t, contexts, options)),
        "this project, a step that draft mode shortens": lambda: torch.cat(unet.predict_noise(x, t, contexts, drafted)),
        "diffusers": lambda: diffusers(twice, t, both, return_dict=False)[0],
    }
    for name, original in _originals(case, state, extension).items():
        steps[name] = lambda network=original: torch.cat([network(x, t, text) for text in texts])  # type: ignore[misc]
    return steps


def _originals(case: Case, state: dict[str, Tensor], extension: Path | None) -> dict[str, nn.Module]:
    """Return the networks that compute in single precision only."""
    if case.dtype != torch.float32:
        return {}
    found: dict[str, nn.Module] = {"modelscope": modelscope_unet(case.config, state)}
    if extension:
        found["the 2023 extension"] = extension_unet(extension, case.config, state)
    return found


def random_unet(config: UNetConfig) -> UNet3D:
    """Return our network with random weights."""
    with torch.device("meta"):
        unet = UNet3D(config)
    unet.load_state_dict(random_weights(unet), assign=True)
    return unet.eval()


def measure_product(dtype: torch.dtype) -> float:
    """Return the floating-point operations per second of a plain matrix product."""
    side = 2048
    a = torch.randn(side, side).to(dtype)
    return 2 * side**3 / min(_seconds(lambda: a @ a) for _ in range(10))


def measure_copy() -> float:
    """Return the bytes per second that a plain copy reads and writes together."""
    source = torch.ones(64_000_000)
    into = source.clone()
    return 2 * source.nbytes / min(_seconds(lambda: into.copy_(source)) for _ in range(10))


def _seconds(function: Callable[[], object]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def _times(its: Sequence[float], mine: Sequence[float]) -> list[str]:
    figures = (statistics.median(its), min(its), max(its))
    ratio = statistics.median(theirs / ours for theirs, ours in zip(its, mine, strict=True))
    return [*(f"{value:.2f}" for value in figures), f"{ratio:.2f}"]


if __name__ == "__main__":
    number, repetitions, *checkout = sys.argv[1:]
    found = compare(CASES[int(number)], int(repetitions), Path(checkout[0]) if checkout else None)
    sys.stdout.write(json.dumps(found) + "\n")
