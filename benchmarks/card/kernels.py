"""Measures in which kernels a step spends its time, and for how much of it the card is busy."""

import statistics
from typing import Any

from torch.profiler import ProfilerActivity, profile

from .guided_step import Step, finish, time_steps
from .sizes import Sizes

STEPS, SHOWN, NAME = 2, 10, 80


def measure_kernels(step: Step, sizes: Sizes) -> dict[str, Any]:
    """Return the kernels that take longest, the number of launches, and the card's share of the time."""
    step()
    wall = 1e3 * statistics.median(time_steps(step, sizes))
    device = sizes.place.device
    on_card = device.type == "cuda"
    with profile(activities=[ProfilerActivity.CUDA if on_card else ProfilerActivity.CPU]) as profiler:
        for _ in range(STEPS):
            step()
        finish(device)
    kernels = _kernels(profiler, on_card=on_card)
    if not kernels:
        raise RuntimeError("the profiler saw no kernels")
    busy = sum(ms for _, ms, _ in kernels)
    launches = sum(calls for name, _, calls in kernels if not name.startswith(("Memcpy", "Memset")))
    return {
        "ms a step": wall,
        "ms of the card a step": busy,
        "share of time busy": busy / wall,
        "launches a step": launches,
        "kernels": sorted(kernels, key=lambda kernel: -kernel[1])[:SHOWN],
    }


def _kernels(profiler: profile, *, on_card: bool) -> list[tuple[str, float, float]]:
    """Return each kernel's name, and its milliseconds and calls per step; on a CPU each operator's."""
    kind, time = ("CUDA", "self_device_time_total") if on_card else ("CPU", "self_cpu_time_total")
    events = [event for event in profiler.key_averages() if event.device_type.name == kind]
    return [(event.key[:NAME], getattr(event, time) / 1e3 / STEPS, event.count / STEPS) for event in events]
