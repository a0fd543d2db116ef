"""How a run reports what it does."""

from collections.abc import Callable
from typing import Literal, NamedTuple

from torch import Tensor

Stage = Literal["encode", "sample", "decode"]


class Step(NamedTuple):
    """One step done. denoised: the clip [1, c, f, h, w] as the network now expects it to become, while sampling."""

    stage: Stage
    done: int
    total: int
    denoised: Tensor | None = None


OnStep = Callable[[Step], None]
"""Called after every step; whatever it raises interrupts the run."""


def ignore(step: Step) -> None:
    """Report to nobody."""
