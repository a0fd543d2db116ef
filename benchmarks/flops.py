"""Counts floating-point operations, with oneDNN's linear layers and attention on CPUs, which torch does not count."""

import math
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch.utils.flop_counter import FlopCounterMode

Result = TypeVar("Result")
ATTENTION = "_scaled_dot_product_flash_attention_for_cpu"


def count_flops(function: Callable[[], Result]) -> tuple[Result, int]:
    """Run a function and return its result, and the number of operations in its matrix products and convolutions."""
    known: dict[Any, Any] = {}
    if hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        known[torch.ops.mkldnn._linear_pointwise] = _linear_flops  # noqa: SLF001 - no public name
    if hasattr(torch.ops.aten, ATTENTION):
        known[getattr(torch.ops.aten, ATTENTION)] = _attention_flops
    with FlopCounterMode(display=False, custom_mapping=known) as counter:
        result = function()
    return result, counter.get_total_flops()


def _linear_flops(x: torch.Size, weight: torch.Size, *_: Any, out_shape: Any = None, **__: Any) -> int:  # noqa: ARG001
    return 2 * math.prod(x) * weight[0]


def _attention_flops(q: torch.Size, k: torch.Size, v: torch.Size, *_: Any, out_shape: Any = None, **__: Any) -> int:  # noqa: ARG001
    return 2 * math.prod(q[:3]) * k[2] * (q[3] + v[3])
