"""A network at work: its weights placed as the plan says, and a way on where memory or precision does not suffice."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from types import TracebackType
from typing import Any, TypeVar

import torch
from torch import Tensor

from ..device import Place, free_unused, knows_bfloat16
from ..errors import ModelError, OutOfMemory, is_memory_error
from ..escape import logger
from ..network.streamable import Streamable
from .plan import Plan, next_below
from .streaming import in_eight_bits, resident, streamed

log = logger(__name__)
Placing = Callable[[Plan, Place], AbstractContextManager[None]]
"""Brings the weights, for as long as its context lasts."""
Tell = Callable[[str, Plan], None]
"""Told in words for people what a run had to change, and the plan it goes on with."""
Result = TypeVar("Result")
REMEDY = "Ask for fewer frames or a smaller size, or close other programs."


def warn(words: str, plan: Plan) -> None:  # noqa: ARG001 - as Tell
    """Tell the log."""
    log.warning(words)


def as_planned(module: Streamable) -> Placing:
    """Resident or streamed, or in 8 bits."""

    def placing(plan: Plan, place: Place) -> AbstractContextManager[None]:
        if plan.eight_bits:
            return in_eight_bits(module, place, torch.device("cpu") if plan.streamed else place.device)
        return (streamed if plan.streamed else resident)(module, place)

    return placing


class Stage:
    """Does work under a plan and in a precision, and does it again under the next where they do not suffice.

    What was done before is kept. doing: for errors, what the work is part of; remedy: what to do where memory runs out.
    """

    def __init__(
        self, placing: Placing, plan: Plan, place: Place, doing: str, tell: Tell = warn, remedy: str = REMEDY
    ) -> None:
        self.plan, self.place = plan, place
        self._placing, self._doing, self._tell, self._remedy = placing, doing, tell, remedy
        self._placed = ExitStack()
        self._ready = False

    def __enter__(self) -> "Stage":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leave()

    def __call__(self, work: Callable[[Plan, Place], Result]) -> Result:
        """The work's result, whose numbers are finite. Raises OutOfMemory, or ModelError where they cannot be."""
        while True:
            try:
                if not self._ready:
                    self._placed.enter_context(self._placing(self.plan, self.place))
                    self._ready = True
                result = work(self.plan, self.place)
                if _finite(result):
                    return result
                del result
                enough = True
            except (MemoryError, RuntimeError, OSError) as error:
                if not is_memory_error(error):
                    raise
                enough = False
            # Not inside of except: there the failed attempt would still hold its tensors.
            self._leave()
            if enough:
                self._widen()
            else:
                self._step_down()

    def _step_down(self) -> None:
        below = next_below(self.plan)
        if below is None:
            raise OutOfMemory(
                f"Not enough memory for {self._doing}, even with the plan {self.plan.name!r}. {self._remedy}"
            )
        self._tell(f"Memory ran out with the plan {self.plan.name!r}; going on with {below.name!r}.", below)
        self.plan = below

    def _widen(self) -> None:
        wider = _wider(self.place)
        if wider is None:
            raise ModelError(
                f"The model produced numbers that are not finite while {self._doing}; the video would be black. "
                "Try a lower CFG scale or weaker LoRAs, or download the model's files again."
            )
        self._tell(f"Numbers were too large for {_name(self.place.dtype)}; going on in {_name(wider)}.", self.plan)
        self.place = self.place._replace(dtype=wider)

    def _leave(self) -> None:
        self._ready = False
        self._placed.close()
        free_unused(self.place.device)


def _finite(result: Any) -> bool:
    return all(bool(tensor.isfinite().all()) for tensor in _tensors(result))


def _tensors(result: Any) -> Iterator[Tensor]:
    """Those of nested lists, tuples and dictionaries."""
    if isinstance(result, Tensor):
        yield result
    elif isinstance(result, list | tuple | dict):
        for part in result.values() if isinstance(result, dict) else result:
            yield from _tensors(part)


def _wider(place: Place) -> torch.dtype | None:
    if place.dtype == torch.float32:
        return None
    return torch.bfloat16 if place.dtype == torch.float16 and knows_bfloat16(place.device) else torch.float32


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
