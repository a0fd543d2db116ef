"""Reports of a run's progress."""

from collections.abc import Callable
from typing import Literal, NamedTuple

from torch import Tensor

Phase = Literal["encode", "source", "sample", "decode", "enlarge", "interpolate"]


class Step(NamedTuple):
    """A step that has been completed.

    done, total: steps of this phase; denoised: sampling's present prediction of the final latents [1, c, f, h, w].
    """

    phase: Phase
    done: int
    total: int
    denoised: Tensor | None = None


OnStep = Callable[[Step], None]
"""Callback after every step; an exception that it raises interrupts the run."""


def ignore(step: Step) -> None:
    """Ignore the report."""
