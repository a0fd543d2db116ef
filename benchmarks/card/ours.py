"""Measures this project's rows: guided steps under each plan, whole runs, and the kernels' times."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch

from ...modelscope.errors import OutOfMemory, TextToVideoError, first_line, is_memory_error
from ...modelscope.memory.passes import PassInputs, predict_noise
from ...modelscope.memory.plan import PLANS, Plan
from ...modelscope.memory.residency import Residency
from ...modelscope.model import Model, outline
from ...modelscope.network.streamable import assign
from ...modelscope.network.unet3d import PassOptions
from ..weights import random_weights
from .children import Outcome
from .guided_step import Step, draw_inputs, forget_memory, measure_step
from .kernels import measure_kernels
from .results import OUT_OF_MEMORY
from .rows import EIGHT_BITS, FEW_STEPS, KEPT, KERNELS, RUN, STEP, Row
from .sizes import Sizes
from .whole_run import Run, measure_run, measure_within

RUNS = {KEPT: Run("fast", kept=True), FEW_STEPS: Run("fast", kept=True, steps=4, sampler="LCM", cfg_scale=1.0)}
"""Ways to run that are not just the name of a plan."""


class Ours:
    """A model with random weights, which are in main memory between rows."""

    def __init__(self, sizes: Sizes) -> None:
        self._sizes = sizes
        self._residency = Residency(make_model(sizes))

    @torch.no_grad()
    def measure(self, row: Row) -> Outcome:
        """Measure a row."""
        forget_memory(self._sizes.place.device)
        try:
            return self._measure(row)
        except TextToVideoError as error:
            return {"failure": OUT_OF_MEMORY if isinstance(error, OutOfMemory) else first_line(error)}
        except (RuntimeError, MemoryError) as error:
            if not is_memory_error(error):
                raise
            return {"failure": OUT_OF_MEMORY}
        finally:
            self._residency.release()

    def _measure(self, row: Row) -> Outcome:
        if row.part in {STEP, KERNELS}:
            measure = measure_step if row.part == STEP else measure_kernels
            with self._step(row) as step:
                return {"figures": measure(step, self._sizes)}
        if row.part == RUN:
            return measure_run(self._residency, row.case, RUNS.get(row.way) or Run(row.way), self._sizes)
        return measure_within(self._residency, row.case, self._sizes)

    @contextmanager
    def _step(self, row: Row) -> Iterator[Step]:
        """Bring the weights as the row's plan says, and yield a step."""
        unet, plan = self._residency.model.unet, _plan_of(row.way)
        x, t, texts = draw_inputs(self._sizes.cases[row.case], self._sizes)
        place = self._sizes.place
        options = PassOptions(plan.budget_on(place.device), plan.batch_cfg)
        recorder = self._residency.recorder_for(plan, place)
        with self._residency.use(unet, plan, place):
            inputs = PassInputs(x, t, [unet.text_context(text) for text in texts])
            yield lambda: predict_noise(unet, inputs, options, recorder)


def _plan_of(way: str) -> Plan:
    return replace(PLANS["smallest"], eight_bits=True) if way == EIGHT_BITS else PLANS[way]


def make_model(sizes: Sizes) -> Model:
    """Return a model with random weights, which are drawn on the card and stored in main memory in its precision.

    It predicts almost no noise, so that numbers do not grow too large from step to step.
    """
    model = outline(sizes.config, sizes.place, sizes.place)
    for part in (model.unet, model.autoencoder, model.text_encoder):
        drawn = random_weights(part, sizes.place.device)
        assign(part, {name: value.to(sizes.place.dtype).cpu() for name, value in drawn.items()})
        part.eval()
    for parameter in model.unet.out[-1].parameters():
        parameter.data.mul_(1e-3)
    return model
