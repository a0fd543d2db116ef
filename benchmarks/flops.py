"""Counts floating-point operations, those of oneDNN's linear layers included, which torch's counter does not know."""

import math
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch.utils.flop_counter import FlopCounterMode

Result = TypeVar("Result")


def count_flops(function: Callable[[], Result]) -> tuple[Result, int]:
    """Run a function and return its result, and the number of operations in its matrix products and convolutions."""
    known = {torch.ops.mkldnn._linear_pointwise: _linear_flops} if _has_linear() else {}  # noqa: SLF001 - no public name
    with FlopCounterMode(display=False, custom_mapping=known) as counter:
        result = function()
    return result, counter.get_total_flops()


def _has_linear() -> bool:
    return hasattr(torch.ops.mkldnn, "_linear_pointwise")


def _linear_flops(x: torch.Size, weight: torch.Size, *_: Any, out_shape: Any = None, **__: Any) -> int:  # noqa: ARG001
    return 2 * math.prod(x) * weight[0]
