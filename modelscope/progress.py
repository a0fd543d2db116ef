"""How a run reports what it does."""

from collections.abc import Callable
from typing import Literal, NamedTuple

from torch import Tensor

Stage = Literal["encode", "sample", "decode"]


class Step(NamedTuple):
    """One step done. latents: [1, c, f, h, w] as the UNet sees them, while sampling."""

    stage: Stage
    done: int
    total: int
    latents: Tensor | None = None


OnStep = Callable[[Step], None]
"""Called after every step; whatever it raises interrupts the run."""


def ignore(step: Step) -> None:
    """Report to nobody."""
