"""Where the modules live and in which precision."""

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
