"""Runs a network's work under a plan, and changes the plan or the precision if they do not suffice."""

import gc
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from types import TracebackType
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from ..device import Place, dtype_name, free_unused, supports_bfloat16
from ..errors import ModelError, OutOfMemory, is_memory_error
from ..escape import logger
from .lora_deltas import NO_DELTAS, Deltas
from .plan import Plan, next_below
from .residency import Residency

log = logger(__name__)
Notify = Callable[[str, Plan], None]
"""Callback when a run's plan or precision changes. It takes a sentence for people, and the plan to go on with."""
Result = TypeVar("Result")
REMEDY = "Ask for fewer frames or a smaller size, or close other programs."


def warn(message: str, plan: Plan) -> None:  # noqa: ARG001 - the signature of Notify
    """Log the message."""
    log.warning(message)


class Task(NamedTuple):
    """The work of a plan runner.

    Args:
        module: The network, or part of one, that the work needs.
        doing: The name of the work in errors, after "Not enough memory for".
        deltas: What LoRAs add to the module's weights.
        remedy: A sentence that says what to do if memory runs out.
    """

    module: nn.Module
    doing: str
    deltas: Deltas = NO_DELTAS
    remedy: str = REMEDY


class PlanRunner:
    """A runner that does work under a plan and in a precision, and repeats it with the next one if they do not suffice.

    Results of earlier work stay valid. The first work brings the weights, which leave when the context ends.

    Args:
        residency: Brings the weights.
        task: The work.
        plan: The plan to begin with; afterwards, `plan` is the one that sufficed.
        place: The device, and the precision to begin with; afterwards, `place` is the one that sufficed.
        notify: Called at each change.
    """

    def __init__(self, residency: Residency, task: Task, plan: Plan, place: Place, notify: Notify = warn) -> None:
        self.plan, self.place = plan, place
        self._residency, self._task, self._notify = residency, task, notify
        self._in_use = ExitStack()
        self._ready = False

    def __enter__(self) -> "PlanRunner":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leave()

    def __call__(self, work: Callable[[Plan, Place], Result]) -> Result:
        """Return the work's result, whose numbers are finite.

        Args:
            work: Called with the plan and the place, perhaps several times; returns arbitrarily nested tensors.

        Raises:
            OutOfMemory: No plan fits.
            ModelError: The numbers are not finite in any precision.
        """
        while True:
            try:
                self._bring_weights()
                result = work(self.plan, self.place)
                if _is_finite(result):
                    return result
                del result
                enough = True
            except (MemoryError, RuntimeError, OSError) as error:
                if not is_memory_error(error):
                    raise
                enough = False
            # Not inside `except`, where the failed attempt would still hold its tensors.
            gc.collect()
            if not enough and self._residency.recorder.forget():
                # The recording's memory may be enough, and nothing depends on it.
                free_unused(self.place.device)
                continue
            self._leave()
            # There is no room for the weights that are kept between runs, or their precision is wrong.
            self._residency.release()
            if enough:
                self._widen()
            else:
                self._step_down()

    def _bring_weights(self) -> None:
        if not self._ready:
            module, deltas = self._task.module, self._task.deltas
            self._in_use.enter_context(self._residency.use(module, self.plan, self.place, deltas))
            self._ready = True

    def _step_down(self) -> None:
        below = next_below(self.plan)
        if below is None:
            raise OutOfMemory(
                f"Not enough memory for {self._task.doing}, even with the plan {self.plan.name!r}. {self._task.remedy}"
            )
        self._notify(f"Memory ran out with the plan {self.plan.name!r}; continuing with {below.name!r}.", below)
        self.plan = below

    def _widen(self) -> None:
        wider = _wider_dtype(self.place)
        if wider is None:
            raise ModelError(
                f"The model produced numbers that are not finite while {self._task.doing}; the video would be black. "
                "Try a lower CFG scale or weaker LoRAs, or download the model's files again."
            )
        self._notify(
            f"Numbers were too large for {dtype_name(self.place.dtype)}; continuing in {dtype_name(wider)}.", self.plan
        )
        self.place = self.place._replace(dtype=wider)

    def _leave(self) -> None:
        self._ready = False
        self._in_use.close()
        free_unused(self.place.device)


def _is_finite(result: Any) -> bool:
    return all(bool(tensor.isfinite().all()) for tensor in _tensors_in(result))


def _tensors_in(result: Any) -> Iterator[Tensor]:
    """Yield all tensors in nested lists, tuples and dictionaries."""
    if isinstance(result, Tensor):
        yield result
    elif isinstance(result, list | tuple | dict):
        for item in result.values() if isinstance(result, dict) else result:
            yield from _tensors_in(item)


def _wider_dtype(place: Place) -> torch.dtype | None:
    """Return the precision to try if numbers are too large for this one, or None after the widest."""
    if place.dtype == torch.float32:
        return None
    return torch.bfloat16 if place.dtype == torch.float16 and supports_bfloat16(place.device) else torch.float32
