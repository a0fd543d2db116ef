"""The device to compute on, its precision, and how much of its memory is free."""

import functools
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch

FIRST_WITH_BFLOAT16 = 8
"""Compute capability of NVIDIA's RTX 30xx and A100."""
CLEARLY_QUICKER = 1.3
"""Minimum speedup for a CPU to count as having bfloat16. With hardware support it takes about half the time of float32,
with emulation several times as long."""

QUICKER_LAST = 1.1
"""Minimum speedup of convolutions for channels last to be used; on an H200 they are 1.3 to 2.7 times as quick."""


class Place(NamedTuple):
    """A device to compute on, and the precision to compute in."""

    device: torch.device
    dtype: torch.dtype


def best_device() -> torch.device:
    """Return the accelerator that torch can use, or the CPU if there is none."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    if torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")


def best_dtype(device: torch.device) -> torch.dtype:
    """Return float16 for accelerators, where it halves memory; for CPUs bfloat16 if they have it, else float32."""
    if device.type == "cpu":
        return torch.bfloat16 if supports_bfloat16(device) else torch.float32
    return torch.float16


def supports(device: torch.device, dtype: torch.dtype) -> bool:
    """Return whether the device computes in this precision at full speed."""
    if dtype == torch.float16:
        return device.type != "cpu"
    return dtype == torch.float32 or supports_bfloat16(device)


def dtype_name(dtype: torch.dtype) -> str:
    """Return a precision's name as an attribute of torch, such as "float16"."""
    return str(dtype).removeprefix("torch.")


def is_nvidia(device: torch.device) -> bool:
    """Return whether the device is an NVIDIA card: torch calls AMD's cards cuda as well."""
    return device.type == "cuda" and not torch.version.hip


@functools.cache
def prefers_channels_last(place: Place) -> bool:
    """Return whether convolutions are quicker on the device if channels come last in memory.

    Measured in a few milliseconds: they are on cards with tensor cores, but not on other cards and CPUs.
    """
    if not is_nvidia(place.device):
        return False
    plain, last = _fastest(
        [_make_convolution(place, order) for order in (torch.contiguous_format, torch.channels_last)]
    )
    return plain > QUICKER_LAST * last


def _make_convolution(place: Place, order: torch.memory_format) -> Callable[[], object]:
    """Return a function that runs convolutions of the size in the UNet's first level and waits for them."""
    shapes = (16, 320, 32, 32), (320, 320, 3, 3)
    x, weight = (torch.ones(shape, dtype=place.dtype, device=place.device).to(memory_format=order) for shape in shapes)

    def convolve() -> None:
        for _ in range(10):
            torch.conv2d(x, weight, padding=1)
        torch.cuda.synchronize(place.device)

    return convolve


def free_memory(device: torch.device) -> int | None:
    """Return how many bytes a run can use, including those that torch has cached; None if the device does not say."""
    if device.type == "cpu":
        import psutil

        return int(psutil.virtual_memory().available)
    kind: Any = getattr(torch, device.type, None)
    # CUDA, ROCm and Intel; the other branch is for Apple.
    if hasattr(kind, "mem_get_info"):
        # Before torch 2.5 this failed for a device without an index.
        index: int | None = device.index
        free: int = kind.mem_get_info(kind.current_device() if index is None else index)[0]
        return free + int(kind.memory_reserved(device)) - int(kind.memory_allocated(device))
    if hasattr(kind, "recommended_max_memory"):
        return int(kind.recommended_max_memory()) - int(kind.driver_allocated_memory())
    return None


def free_unused(device: torch.device) -> None:
    """Release the memory that torch has cached: the device's, and pinned main memory."""
    empty_cache = getattr(getattr(torch, device.type, None), "empty_cache", None)
    if empty_cache:
        empty_cache()
    # Not all versions of torch have a public name for it.
    empty_pinned = getattr(torch._C, "_host_emptyCache", None)  # noqa: SLF001
    if empty_pinned and device.type == "cuda":
        empty_pinned()


def supports_bfloat16(device: torch.device) -> bool:
    """Return whether the device has bfloat16 in hardware. torch also says yes for cards that emulate it slowly."""
    if device.type == "cuda":
        return bool(torch.version.hip) or torch.cuda.get_device_capability(device)[0] >= FIRST_WITH_BFLOAT16
    return device.type == "xpu" or (device.type == "cpu" and multiplies_in_bfloat16())


@functools.cache
def multiplies_in_bfloat16() -> bool:
    """Return whether the CPU is clearly quicker in bfloat16, measured in a few milliseconds.

    The CPU's flags do not settle it: not every version of torch uses them, and some systems hide them.
    """
    matrices = [torch.ones(384, 384, dtype=dtype) for dtype in (torch.float32, torch.bfloat16)]
    single, half = _fastest([functools.partial(torch.mm, matrix, matrix) for matrix in matrices])
    return single > CLEARLY_QUICKER * half


def _fastest(trials: Sequence[Callable[[], object]]) -> list[float]:
    """Return the shortest time of each trial, in seconds."""
    # Trials take turns, so that other programs disturb all of them equally. The best of several counts, since a card
    # looks for a kernel in the first.
    times = [[_time(trial) for trial in trials] for _ in range(5)]
    return [min(column) for column in zip(*times, strict=True)]


def _time(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start
