"""Which device to compute on, in which precision, and how much of its memory is free."""

import functools
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import torch

FIRST_WITH_BFLOAT16 = 8
"""Compute capability of NVIDIA's RTX 30xx and A100."""
CLEARLY_QUICKER = 1.3
"""A processor that has bfloat16 takes about half the time with it, one that imitates it several times as long."""

QUICKER_LAST = 1.1
"""So much quicker convolutions have to be with channels last; on an H200 they are 1.3 to 2.7 times as quick."""


class Place(NamedTuple):
    """Where to compute, and in which precision."""

    device: torch.device
    dtype: torch.dtype


def best_device() -> torch.device:
    """The accelerator that torch can use, else the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    if torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")


def best_dtype(device: torch.device) -> torch.dtype:
    """Half precision on accelerators, where it halves memory; on CPUs bfloat16 where they have it, else single."""
    if device.type == "cpu":
        return torch.bfloat16 if supports_bfloat16(device) else torch.float32
    return torch.float16


def supports(device: torch.device, dtype: torch.dtype) -> bool:
    """Return whether the device computes in this precision as quickly as it can."""
    if dtype == torch.float16:
        return device.type != "cpu"
    return dtype == torch.float32 or supports_bfloat16(device)


def dtype_name(dtype: torch.dtype) -> str:
    """Return a precision's name, as `getattr(torch, name)` takes it."""
    return str(dtype).removeprefix("torch.")


@functools.cache
def prefers_channels_last(place: Place) -> bool:
    """Return whether the device convolves more quickly there where channels come last in memory.

    By a trial of some milliseconds: cards with tensor cores do, other cards and CPUs do not.
    """
    if place.device.type != "cuda" or torch.version.hip:
        return False
    orders = (torch.contiguous_format, torch.channels_last)
    trials = [_make_convolution(place, order) for order in orders]
    # In turns, as below; the first of each finds its kernel.
    times = [[_time_on_card(trial, place.device) for trial in trials] for _ in range(4)][1:]
    plain, last = (min(column) for column in zip(*times, strict=True))
    return plain > QUICKER_LAST * last


def _make_convolution(place: Place, order: torch.memory_format) -> Callable[[], object]:
    """Return a convolution to run, as large as in the UNet's first level."""
    shapes = (16, 320, 32, 32), (320, 320, 3, 3)
    x, weight = (torch.ones(shape, dtype=place.dtype, device=place.device).to(memory_format=order) for shape in shapes)
    return lambda: torch.conv2d(x, weight, padding=1)


def _time_on_card(work: Callable[[], object], device: torch.device) -> float:
    torch.cuda.synchronize(device)
    start = time.perf_counter()
    for _ in range(10):
        work()
    torch.cuda.synchronize(device)
    return time.perf_counter() - start


def free_memory(device: torch.device) -> int | None:
    """Return the bytes that a run could have, those that torch keeps included; None if the device does not say."""
    if device.type == "cpu":
        import psutil

        return int(psutil.virtual_memory().available)
    kind: Any = getattr(torch, device.type, None)
    # CUDA, ROCm and Intel's; then Apple's.
    if hasattr(kind, "mem_get_info"):
        # Before torch 2.5 a device without a number got no answer.
        index: int | None = device.index
        free: int = kind.mem_get_info(kind.current_device() if index is None else index)[0]
        return free + int(kind.memory_reserved(device)) - int(kind.memory_allocated(device))
    if hasattr(kind, "recommended_max_memory"):
        return int(kind.recommended_max_memory()) - int(kind.driver_allocated_memory())
    return None


def free_unused(device: torch.device) -> None:
    """Give back memory that torch keeps for later: the device's, and pinned main memory."""
    empty_cache = getattr(getattr(torch, device.type, None), "empty_cache", None)
    if empty_cache:
        empty_cache()
    # It has no public name in all versions.
    empty_pinned = getattr(torch._C, "_host_emptyCache", None)  # noqa: SLF001
    if empty_pinned and device.type == "cuda":
        empty_pinned()


def supports_bfloat16(device: torch.device) -> bool:
    """Return whether the device has bfloat16 in hardware. torch says yes for cards that only imitate it, slowly."""
    if device.type == "cuda":
        return bool(torch.version.hip) or torch.cuda.get_device_capability(device)[0] >= FIRST_WITH_BFLOAT16
    return device.type == "xpu" or (device.type == "cpu" and multiplies_in_bfloat16())


@functools.cache
def multiplies_in_bfloat16() -> bool:
    """Return whether the CPU is clearly quicker in bfloat16, by a trial of some milliseconds.

    Its flags are no answer: not every torch asks for them, and some systems hide them.
    """
    matrices = [torch.ones(384, 384, dtype=dtype) for dtype in (torch.float32, torch.bfloat16)]
    # In turns, and the best of several: other programs disturb both alike.
    trials = [[_time(matrix) for matrix in matrices] for _ in range(5)]
    single, half = (min(times) for times in zip(*trials, strict=True))
    return single > CLEARLY_QUICKER * half


def _time(matrix: torch.Tensor) -> float:
    start = time.perf_counter()
    torch.mm(matrix, matrix)
    return time.perf_counter() - start
