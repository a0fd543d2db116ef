"""Measures guided steps of our network and the rivals', with the same weights.

What a process did before changes its memory allocation, and thereby the ratios: each case says what that was.
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from ..modelscope.device import supports_bfloat16
from ..modelscope.memory.batching import is_quicker_batched
from ..modelscope.network.unet3d import UNet3D
from .cases import CASES, CPU, FEW, HALF, MANY, MID, OURS, Case, list_networks, make_steps
from .flops import count_flops

HEADER = ("network", "median s", "fastest s", "slowest s", "times ours", "TFLOP", "of a product's rate", "difference")
ROUNDS = 3


class Figures(NamedTuple):
    """Figures from one process: seconds of each step and operations of one, by network, and the machine's own rates.

    product: floating-point operations a second; copy: bytes a second.
    """

    seconds: dict[str, list[float]]
    operations: dict[str, int]
    product: float
    copy: float


class Table(NamedTuple):
    """A row for each network, ours first, and a sentence on how far ours is from the machine's limits."""

    rows: list[list[str]]
    limits: str


def measure(case: Case, runs: int, extension: Path | None) -> Table | None:
    """Measure a case; None if the processor lacks its precision.

    In fresh processes each network is alone. A used one has run the networks at another size, and runs them in turn.

    extension: a checkout of the 2023 extension, if it is to take part.
    """
    if case.dtype == HALF and not supports_bfloat16(CPU):
        return None
    networks = list_networks(case, extension)
    with tempfile.TemporaryDirectory() as folder:
        groups = [networks] if case.used else [[name] for name in networks]
        # Several times, since the machine's speed changes from minute to minute.
        found = [_run_child(case, runs, group, extension, Path(folder)) for _ in range(ROUNDS) for group in groups]
        outputs = [torch.load(Path(folder) / f"{index}.pt") for index in range(len(networks))]
    return make_table(case, networks, found, outputs)


def _run_child(case: Case, runs: int, networks: list[str], extension: Path | None, folder: Path) -> Figures:
    order = [CASES.index(case), runs, networks, str(extension) if extension else None, str(folder)]
    command = [sys.executable, "-m", __spec__.name, json.dumps(order)]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return Figures(*json.loads(output.splitlines()[-1]))


def make_table(case: Case, networks: list[str], found: list[Figures], outputs: list[Tensor]) -> Table:
    """Put together what the processes measured. outputs: each network's noise."""
    seconds = {name: [x for one in found for x in one.seconds.get(name, [])] for name in networks}
    operations = {name: count for one in found for name, count in one.operations.items()}
    product, copy = (max(getattr(one, name) for one in found) for name in ("product", "copy"))
    rows = []
    for name, output in zip(networks, outputs, strict=True):
        median, gap = statistics.median(seconds[name]), float((output - outputs[0]).abs().max())
        ratio, rate = median / statistics.median(seconds[OURS]), operations[name] / median / product
        times = [f"{value:.2f}" for value in (median, min(seconds[name]), max(seconds[name]), ratio)]
        rows.append([name, *times, f"{operations[name] / 1e12:.3f}", f"{rate:.0%}", f"{gap:.1e}"])
    return Table(rows, _describe_limits(case, statistics.median(seconds[OURS]), product, copy))


@torch.inference_mode()
def run_networks(case: Case, runs: int, networks: list[str], extension: Path | None, folder: Path) -> Figures:
    """Measure networks in this process, in turn, and write the noise that they predict into the folder."""
    everyone = list_networks(case, extension)
    if case.used:
        other = case._replace(config=MID, clip=FEW if case.clip == MANY else MANY)
        for step in make_steps(other, networks, extension).values():
            step()
    steps = make_steps(case, networks, extension)
    operations = {}
    for name, step in steps.items():
        output, operations[name] = count_flops(step)
        torch.save(output, folder / f"{everyone.index(name)}.pt")
        del output
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(runs):
        for name, step in steps.items():
            seconds[name].append(_seconds(step))
    return Figures(seconds, operations, measure_product(case.dtype), measure_copy())


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


if __name__ == "__main__":
    number, count, some, checkout, target = json.loads(sys.argv[1])
    figures = run_networks(CASES[number], count, some, Path(checkout) if checkout else None, Path(target))
    sys.stdout.write(json.dumps(figures) + "\n")
