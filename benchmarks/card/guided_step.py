"""Measures the time, memory and arithmetic of guided steps."""

import gc
import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..flops import count_flops
from .rows import Case
from .sizes import Sizes

GIB = 2**30
WARM, LEAST, MOST = 2, 2, 10
"""Number of steps before timing, and the smallest and largest number of timed steps."""
Step = Callable[[], object]


class Inputs(NamedTuple):
    """The inputs of a guided step: latents [1, 4, f, h, w], a timestep [1] and two texts [1, 77, width]."""

    x: Tensor
    t: Tensor
    texts: list[Tensor]


def draw_inputs(case: Case, sizes: Sizes) -> Inputs:
    """Draw random inputs of a case's size, on the device and in the precision of the benchmark."""
    unet, place = sizes.config.unet, sizes.place
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1, unet.in_dim, case.frames, case.height, case.width, generator=generator)
    texts = [torch.randn(1, 77, unet.context_dim, generator=generator).to(*place) for _ in range(2)]
    return Inputs(x.to(*place), torch.tensor([500], device=place.device), texts)


def measure_step(step: Step, sizes: Sizes) -> dict[str, Any]:
    """Return the figures of a step. The first, which finds the kernels, is counted, and later ones are timed."""
    tflop = count_flops(step)[1] / 1e12
    for _ in range(WARM):
        # Passes of a short clip are recorded after the second pass.
        step()
    seconds = time_steps(step, sizes)
    median = statistics.median(seconds)
    figures = {"seconds a step": median, "TFLOP": tflop, "TFLOP/s": tflop / median, "steps": len(seconds)}
    return figures | peak_memory(sizes.place.device)


def time_steps(step: Step, sizes: Sizes) -> list[float]:
    """Return the seconds that each step takes."""
    device = sizes.place.device
    finish(device)
    seconds: list[float] = []
    while len(seconds) < LEAST or (len(seconds) < MOST and sum(seconds) < sizes.seconds):
        start = time.perf_counter()
        step()
        finish(device)
        seconds.append(time.perf_counter() - start)
    return seconds


def finish(device: torch.device) -> None:
    """Wait until the card has finished all its work."""
    if device.type == "cuda":
        torch.cuda.synchronize()


def forget_memory(device: torch.device) -> None:
    """Free the memory of earlier rows, and reset the peaks of memory use."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def peak_memory(device: torch.device) -> dict[str, float]:
    """Return torch's peak memory since `forget_memory`. Reserved memory is not available to other programs."""
    if device.type != "cuda":
        return {"GiB reserved": 0.0, "GiB allocated": 0.0}
    reserved, allocated = torch.cuda.max_memory_reserved(), torch.cuda.max_memory_allocated()
    return {"GiB reserved": reserved / GIB, "GiB allocated": allocated / GIB}
