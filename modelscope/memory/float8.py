"""Weights in 8 bits: half the memory of float16, at some loss of precision.

Each row of a matrix, or filter of a convolution, is scaled to the range of the format (float8_e4m3fn: 4 bits of
exponent, 3 of mantissa), so that small weights keep their precision. Vectors, such as norms and biases, are not
quantized.
"""

import torch
from torch import Tensor

FORMAT: torch.dtype | None = getattr(torch, "float8_e4m3fn", None)
LARGEST = 448.0
"""The largest number of the format."""
SCALE = "/scale"
"""Suffix that makes a weight's name the name of its scales. No weight has a slash in its name."""


def is_supported(device: torch.device) -> bool:
    """Return whether the device can convert numbers to and from the format."""
    if FORMAT is None:
        return False
    try:
        torch.ones(1, device=device).to(FORMAT).to(torch.float32)
    except (RuntimeError, TypeError, NotImplementedError):
        return False
    return True


def quantize(tensors: dict[str, Tensor], device: torch.device) -> dict[str, Tensor]:
    """Return the tensors on the device, with matrices and filters in 8 bits, and their scales under separate names."""
    found: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if tensor.ndim < 2:
            found[name] = tensor.to(device)
        else:
            found[name], found[name + SCALE] = _quantize_rows(tensor, device)
    return found


def _quantize_rows(tensor: Tensor, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return values in the tensor's shape and scales [rows, 1, ...]. This takes only one more copy of the tensor."""
    assert FORMAT is not None
    rows = tensor.to(device, torch.float32, copy=True)
    dims = tuple(range(1, rows.ndim))
    largest = torch.maximum(rows.amax(dims, keepdim=True), -rows.amin(dims, keepdim=True))
    # Multiplied rather than divided: cards do that anyway, and the last bit would differ from a CPU's.
    scale = (largest * (1 / LARGEST)).clamp_min(torch.finfo(torch.float32).tiny)
    return rows.div_(scale).to(FORMAT), scale


def is_quantized(name: str, tensors: dict[str, Tensor]) -> bool:
    """Return whether a name is that of a weight in 8 bits, or of its scales."""
    return name.endswith(SCALE) or name + SCALE in tensors


def dequantize(tensors: dict[str, Tensor], device: torch.device, dtype: torch.dtype) -> dict[str, Tensor]:
    """Return the weights on a device in a precision; those in 8 bits are approximately what they were."""
    found = {name: tensor.to(device, dtype) for name, tensor in tensors.items() if not name.endswith(SCALE)}
    for name, tensor in found.items():
        if name + SCALE in tensors:
            # Scales stay in single precision: half precision has no numbers so small.
            tensor.mul_(tensors[name + SCALE].to(device))
    return found
