"""What a sampler is, and the table of all of them. Import `catalogue` instead: there the table is complete."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from torch import Tensor

from ..errors import RequestError
from .schedules import NoiseLevel

Denoise = Callable[[Tensor, NoiseLevel], Tensor]
"""Returns the model's guess at x0, given x [b, ...] (VE) and the noise level in it."""

Noise = Callable[[], Tensor]
"""Returns the next seeded standard normal tensor, shaped like x."""

Solver = Callable[[Denoise, Tensor, Sequence[NoiseLevel], Noise, float], Iterator[Tensor]]
"""Yields x at each noise level after the first, given denoise, x at the first (VE), all levels, noise and eta."""

Grid = Callable[[int], list[NoiseLevel]]
"""Returns the noise levels of so many steps, falling. Raises RequestError where there are none."""


@dataclass(frozen=True)
class Sampler:
    """A solver with the grid that people expect under its name.

    uses_eta: whether the request's eta changes anything.
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
    """The sampler of that name. Raises RequestError, which lists the known ones, if there is none."""
    if name not in _SAMPLERS:
        raise RequestError(f"Sampler {name!r} is not known. Known are: {', '.join(_SAMPLERS)}.")
    return _SAMPLERS[name]


def sampler_names() -> list[str]:
    """All names, in the order of registration."""
    return list(_SAMPLERS)
