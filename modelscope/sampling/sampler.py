"""Samplers and their table. Import `catalogue` instead of this module: only then is the table complete."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from torch import Tensor

from ..errors import RequestError
from .schedules import NoiseLevel

Denoise = Callable[[Tensor, NoiseLevel], Tensor]
"""Returns the model's guess at x0, given x [b, ...] (VE) and its noise level."""

Noise = Callable[[], Tensor]
"""Returns the next seeded standard normal tensor, shaped like x."""

Solver = Callable[[Denoise, Tensor, Sequence[NoiseLevel], Noise, float], Iterator[Tensor]]
"""Yields x at each noise level after the first, given denoise, x at the first (VE), all noise levels, noise and eta."""

Grid = Callable[[int], list[NoiseLevel]]
"""Returns the noise levels for a number of steps, falling. Raises RequestError if that number is not possible."""


@dataclass(frozen=True)
class Sampler:
    """A solver with the grid that people expect under its name.

    uses_eta: whether the request's eta has an effect.
    """

    name: str
    solve: Solver
    grid: Grid
    default_steps: int
    uses_eta: bool


_SAMPLERS: dict[str, Sampler] = {}
_Solver = TypeVar("_Solver", bound=Solver)


def sampler(name: str, *, grid: Grid, default_steps: int = 25, uses_eta: bool = False) -> Callable[[_Solver], _Solver]:
    """Register a solver under a name; people see names in the order of registration."""

    def register(solve: _Solver) -> _Solver:
        _SAMPLERS[name] = Sampler(name, solve, grid, default_steps, uses_eta)
        return solve

    return register


def get_sampler(name: str) -> Sampler:
    """Return the sampler with this name. Raises RequestError, which lists the known names, if there is none."""
    if name not in _SAMPLERS:
        raise RequestError(f"Sampler {name!r} is unknown. Choose one of: {', '.join(_SAMPLERS)}.")
    return _SAMPLERS[name]


def sampler_names() -> list[str]:
    """Return all samplers' names, in the order of registration."""
    return list(_SAMPLERS)
