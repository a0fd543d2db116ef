"""Measures a card's limits: the rates of a matrix product and of copies."""

import time
from collections.abc import Callable

import torch

from .children import Outcome
from .guided_step import finish
from .rows import COPY, PINNED, PRODUCT, Row
from .sizes import Sizes

TIMES = 10


@torch.no_grad()
def measure_limits(row: Row, sizes: Sizes) -> Outcome:
    """Measure one of the limits."""
    if row.way == PRODUCT:
        return {"figures": {"TFLOP/s": _multiply(sizes) / 1e12}}
    if row.way == COPY:
        # Every byte is read and written.
        return {"figures": {"GB/s": 2 * _copy(sizes, sizes.place.device, pinned=False) / 1e9}}
    return {"figures": {"GB/s": _copy(sizes, torch.device("cpu"), pinned=row.way == PINNED) / 1e9}}


def _multiply(sizes: Sizes) -> float:
    """Return the operations per second of a matrix product."""
    device, dtype = sizes.place
    a, b = (torch.randn(sizes.side, sizes.side, device=device).to(dtype) for _ in range(2))
    return 2 * sizes.side**3 / _seconds(lambda: torch.mm(a, b), device)


def _copy(sizes: Sizes, source: torch.device, *, pinned: bool) -> float:
    """Return bytes per second of copies to the card."""
    device = sizes.place.device
    given = torch.ones(sizes.copied, dtype=torch.uint8, device=source)
    given = given.pin_memory() if pinned and device.type == "cuda" else given
    goal = torch.empty_like(given, device=device)
    return sizes.copied / _seconds(lambda: goal.copy_(given, non_blocking=pinned), device)


def _seconds(work: Callable[[], object], device: torch.device) -> float:
    """Return the mean time of several runs, after one that is not timed."""
    work()
    finish(device)
    start = time.perf_counter()
    for _ in range(TIMES):
        work()
    finish(device)
    return (time.perf_counter() - start) / TIMES
