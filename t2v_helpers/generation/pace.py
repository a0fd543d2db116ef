"""How quickly this machine makes videos: learned from the runs so far, and the base of forecasts of time."""

import math
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field, replace

from ...modelscope.device import Place
from ...modelscope.memory.batching import count_products
from ...modelscope.memory.choice import Choice
from ...modelscope.memory.estimate import Clip
from ...modelscope.memory.plan import Plan
from ...modelscope.model import Model
from ...modelscope.progress import OnStep, Phase, Step
from ...modelscope.request import VideoRequest
from ...modelscope.units import format_duration

Check = Callable[[float | None], None]
"""Gets seconds, or None if they are not known, and may raise."""
SIMILAR = 16.0
"""Factor in work within which time is about proportional to it. Small clips take longer than their work says."""
REMEMBERED = 32
"""Number of different works that are remembered."""
DRAFTED = 0.4
"""Time of a step that draft mode shortens, as a share of a whole one (docs/benchmark.md: 0.3 to 0.5)."""


def ignore_seconds(_: float | None) -> None:
    """Allow any time."""


@dataclass(frozen=True)
class Work:
    """The work that a video takes. Its units mean nothing; only ratios do.

    Args:
        place: Device and precision of the UNet.
        steps, frames: Number of steps, and of frames to decode.
        step, frame: Work of one step, and of decoding one frame.
    """

    place: Place
    steps: float
    frames: int
    step: float
    frame: float

    def of(self, phase: Phase) -> float:
        """Return the work of one step of a phase, or 0 for phases that are not forecast."""
        return {"sample": self.step, "decode": self.frame}.get(phase, 0.0)


@dataclass
class Pace:
    """Seconds of steps by their work, for each phase, device, precision and plan. There is one for the process."""

    _seen: dict[Hashable, dict[float, float]] = field(default_factory=dict)

    def note(self, phase: Phase, work: Work, plan: Plan, seconds: float) -> None:
        """Remember how long a step of a phase took."""
        seen = self._seen.setdefault((phase, work.place, plan), {})
        amount = work.of(phase)
        seen.pop(amount, None)
        seen[amount] = seconds
        if len(seen) > REMEMBERED:
            del seen[next(iter(seen))]

    def forecast(self, work: Work, plan: Plan) -> float | None:
        """Return how many seconds a video will take, or None if no run with this plan was similar enough."""
        sampled, decoded = (self._seconds_of(phase, work, plan) for phase in ("sample", "decode"))
        return None if sampled is None else sampled * work.steps + (decoded or 0.0) * work.frames

    def _seconds_of(self, phase: Phase, work: Work, plan: Plan) -> float | None:
        """Return the seconds of a step, from the one seen whose work is nearest."""
        # A copy: another thread may add to it.
        seen = dict(self._seen.get((phase, work.place, plan), {}))
        wanted = work.of(phase)
        if not wanted:
            return None
        nearest = min(seen, key=lambda amount: abs(math.log(amount / wanted)), default=0.0)
        if not wanted / SIMILAR <= nearest <= wanted * SIMILAR:
            return None
        return seen[nearest] * wanted / nearest


PACE = Pace()
"""What the process has learned."""


class Watch:
    """An `on_step` that notes how long steps take, and passes them on.

    Not a closure: an exception's frames, once cleared, still hold their functions and what those refer to.

    Args:
        work: The clip's work.
        plan: Returns the present plan, which can change during a run.
        on_step: Gets the steps.
        check: Called after each step of sampling with the clip's seconds, or None as long as they are not known.
        pace: Remembers the times.
    """

    def __init__(
        self,
        work: Work,
        plan: Callable[[], Plan],
        on_step: OnStep,
        check: Check = ignore_seconds,
        pace: Pace = PACE,
    ) -> None:
        self._work, self._plan, self._on_step, self._check, self._pace = work, plan, on_step, check, pace
        self._began: tuple[Phase, Plan] | None = None
        self._first, self._start = 0, 0.0

    def __call__(self, step: Step) -> None:
        now, plan = time.perf_counter(), self._plan()
        if self._began != (step.phase, plan) or self._first >= step.done:
            # The first step also brings weights and finds kernels.
            self._began, self._first, self._start = (step.phase, plan), step.done, now
        elif self._work.of(step.phase):
            self._pace.note(step.phase, self._work, plan, (now - self._start) / (step.done - self._first))
        self._on_step(step)
        if step.phase == "sample":
            self._check(self._pace.forecast(replace(self._work, steps=step.total), plan))


def count_work(model: Model, request: VideoRequest, *, is_turbo: bool = False, share: float = 1.0) -> Work:
    """Return the work of a request.

    Args:
        model: The model; only the shapes of its networks are used.
        request: The parameters of the video.
        is_turbo: Whether T2V-Turbo's LoRA replaces guidance.
        share: Share of the steps that are done; a video that starts from a source leaves some out.
    """
    scale = model.config.autoencoder.scale
    clip = Clip(request.frames, request.height // scale, request.width // scale)
    guided = 0.0 if is_turbo or request.cfg_scale == 1 else max(0.0, request.cfg_until - request.cfg_from)
    drafted = (1 + DRAFTED * (request.draft - 1)) / request.draft
    step = count_products(model.unet, clip) * (1 + guided) * drafted
    pixels = request.height * request.width
    return Work(model.place, request.steps * share, request.frames, step, pixels)


def describe(choice: Choice, seconds: float | None) -> str:
    """Return a forecast of memory and, if it is known, of time."""
    return str(choice) if seconds is None else f"{choice}, takes about {format_duration(seconds)}"
