"""How a run reports what it does."""

from collections.abc import Callable
from typing import Literal, NamedTuple

from torch import Tensor

Phase = Literal["encode", "sample", "decode"]


class Step(NamedTuple):
    """A step that is done.

    done, total: steps of this phase; denoised: the latents [1, c, f, h, w] that sampling now predicts.
    """

    phase: Phase
    done: int
    total: int
    denoised: Tensor | None = None


OnStep = Callable[[Step], None]
"""Called after every step; whatever it raises interrupts the run."""


def ignore(step: Step) -> None:
    """Report to nobody."""
