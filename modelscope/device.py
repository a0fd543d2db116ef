"""Which device to compute on, in which precision, and how much of its memory is free."""

import functools
import time
from collections.abc import Callable, Sequence
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


def is_nvidia(device: torch.device) -> bool:
    """Return whether the device is an NVIDIA card: torch calls AMD's cuda as well."""
    return device.type == "cuda" and not torch.version.hip


@functools.cache
def prefers_channels_last(place: Place) -> bool:
    """Return whether the device convolves more quickly there where channels come last in memory.

    By a trial of some milliseconds: cards with tensor cores do, other cards and CPUs do not.
    """
    if not is_nvidia(place.device):
        return False
    plain, last = _fastest(
        [_make_convolution(place, order) for order in (torch.contiguous_format, torch.channels_last)]
    )
    return plain > QUICKER_LAST * last


def _make_convolution(place: Place, order: torch.memory_format) -> Callable[[], object]:
    """Return convolutions to run, as large as in the UNet's first level, and to wait for."""
    shapes = (16, 320, 32, 32), (320, 320, 3, 3)
    x, weight = (torch.ones(shape, dtype=place.dtype, device=place.device).to(memory_format=order) for shape in shapes)

    def convolve() -> None:
        for _ in range(10):
            torch.conv2d(x, weight, padding=1)
        torch.cuda.synchronize(place.device)

    return convolve


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
    single, half = _fastest([functools.partial(torch.mm, matrix, matrix) for matrix in matrices])
    return single > CLEARLY_QUICKER * half


def _fastest(trials: Sequence[Callable[[], object]]) -> list[float]:
    """Return the fewest seconds that each of them takes."""
    # In turns, and the best of several: other programs disturb all alike, and the first of a card finds its kernel.
    times = [[_time(trial) for trial in trials] for _ in range(5)]
    return [min(column) for column in zip(*times, strict=True)]


def _time(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start
