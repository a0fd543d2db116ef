"""Times whole runs, from the prompt to frames, phase by phase, and tries one within a memory limit."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch

from ...modelscope.memory.plan import PLANS, Plan
from ...modelscope.memory.residency import Residency
from ...modelscope.pipeline import generate
from ...modelscope.progress import Step
from ...modelscope.request import VideoRequest
from ...modelscope.run_options import RunOptions
from .children import Outcome
from .guided_step import GIB, finish, forget_memory, peak_memory
from .sizes import Sizes

STEPS_WITHIN = 2


class Run(NamedTuple):
    """Parameters of a run.

    Args:
        plan: The plan's name.
        kept: Whether all weights are kept on the device, and another run has been made before.
        steps: The number of steps, if not the usual one.
        sampler: The sampler's name, if not the usual one.
        cfg_scale: The guidance scale; 1 for no guidance.
    """

    plan: str
    kept: bool = False
    steps: int = 0
    sampler: str = VideoRequest.sampler
    cfg_scale: float = VideoRequest.cfg_scale


class _Clock:
    """A clock that notes the end of each phase, and of each step of sampling."""

    def __init__(self, device: torch.device) -> None:
        self._device, self._start = device, time.perf_counter()
        self._ends: dict[str, float] = {}
        self._samples: list[float] = []

    def __call__(self, step: Step) -> None:
        finish(self._device)
        self._ends[step.phase] = time.perf_counter()
        if step.phase == "sample":
            self._samples.append(time.perf_counter())

    def figures(self) -> dict[str, float]:
        """Return the seconds of the run, of each phase including the copying of its weights, and of a later step."""
        encode, sample, decode = (self._ends[phase] for phase in ("encode", "sample", "decode"))
        each = (self._samples[-1] - self._samples[0]) / (len(self._samples) - 1)
        phases = {"encode": encode - self._start, "sample": sample - encode, "decode": decode - sample}
        return {"seconds": time.perf_counter() - self._start, **phases, "seconds a step": each}


def measure_run(residency: Residency, case: str, run: Run, sizes: Sizes) -> Outcome:
    """Make a video and return the figures, or a failure if the run had to change its plan or precision."""
    if run.kept:
        residency.keep(everything=True)
        _make_video(residency, case, run, sizes)
    else:
        # Kernels are found at their first use. One frame is enough for those of the decoder.
        _make_video(residency, case, Run("fast", steps=STEPS_WITHIN), sizes, frames=1)
        forget_memory(sizes.place.device)
    clock, messages = _make_video(residency, case, run, sizes)
    if messages:
        return {"failure": f"the run changed its plan or precision: {messages[0]}"}
    return {"figures": clock.figures() | peak_memory(sizes.place.device)}


def measure_within(residency: Residency, case: str, sizes: Sizes) -> Outcome:
    """Try the smallest plan with as much memory as the case allows."""
    limit, device = sizes.cases[case].limit_gib, sizes.place.device
    with _limited(limit, device):
        _, messages = _make_video(residency, case, Run("smallest", steps=STEPS_WITHIN), sizes)
    within = f"no: {messages[0]}" if messages else "yes"
    return {"figures": {"limit, GiB": limit, "within": within} | peak_memory(device)}


@contextmanager
def _limited(gib: float, device: torch.device) -> Iterator[None]:
    """Limit the memory that torch may reserve."""
    if device.type != "cuda":
        yield
        return
    torch.cuda.set_per_process_memory_fraction(gib * GIB / torch.cuda.get_device_properties(0).total_memory)
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


def _make_video(residency: Residency, case: str, run: Run, sizes: Sizes, frames: int = 0) -> tuple[_Clock, list[str]]:
    """Make a video of a case's size, and return its times and the run's notifications.

    frames: the number of frames, if not the case's.
    """
    size, scale, messages = sizes.cases[case], sizes.config.autoencoder.scale, list[str]()
    request = VideoRequest(
        prompt="a red ball moving left",
        sampler=run.sampler,
        steps=run.steps or sizes.steps,
        cfg_scale=run.cfg_scale,
        width=size.width * scale,
        height=size.height * scale,
        frames=frames or size.frames,
        seed=0,
    )

    def notify(message: str, _: Plan) -> None:
        messages.append(message)

    clock = _Clock(sizes.place.device)
    generate(residency, request, RunOptions(on_step=clock, plan=PLANS[run.plan], notify=notify))
    return clock, messages
