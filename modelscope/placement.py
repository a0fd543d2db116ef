"""Which device to compute on, in which precision, and how much of its memory is free."""

from typing import Any

import torch


def best_device() -> torch.device:
    """The accelerator torch can use, else the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    if torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")


def best_dtype(device: torch.device) -> torch.dtype:
    """Half precision halves memory on accelerators; CPUs compute in single."""
    return torch.float32 if device.type == "cpu" else torch.float16


def free_memory(device: torch.device) -> int | None:
    """Bytes that a run could have, those included which torch keeps for later; None where nobody says."""
    if device.type == "cpu":
        import psutil

        return int(psutil.virtual_memory().available)
    kind: Any = getattr(torch, device.type, None)
    # CUDA, ROCm and Intel's; then Apple's.
    if hasattr(kind, "mem_get_info"):
        free: int = kind.mem_get_info(device)[0]
        return free + int(kind.memory_reserved(device)) - int(kind.memory_allocated(device))
    if hasattr(kind, "recommended_max_memory"):
        return int(kind.recommended_max_memory()) - int(kind.driver_allocated_memory())
    return None
