"""Loads a job's models, one at a time, and adapts requests to what was loaded."""

from dataclasses import replace
from typing import NamedTuple

from ...modelscope.device import dtype_name
from ...modelscope.memory.lora_deltas import LoraDeltas
from ...modelscope.memory.residency import Residency
from ...modelscope.units import format_count
from ..host import Host
from ..models.folders import ModelFolder
from ..models.known import good_values
from ..places import Places, asked_precisions, places
from ..request import GenerationRequest
from ..terminal import say
from .job import Job
from .kept_model import ModelStore
from .limits import choose_for_run
from .outcome import OutcomeBuilder
from .pace import PACE, count_work, describe
from .turbo_request import adapt_request


class Loaded(NamedTuple):
    """A loaded model, its LoRAs, and a request that is adapted to both, without tags."""

    residency: Residency
    loras: LoraDeltas
    request: GenerationRequest


class Loader:
    """Loads the models of a job. What it has to say goes to the outcome's builder."""

    def __init__(self, host: Host, job: Job, store: ModelStore, builder: OutcomeBuilder) -> None:
        self._host, self._job, self._store, self._builder = host, job, store, builder
        self._last: tuple[ModelFolder, Residency, LoraDeltas] | None = None
        self._size: tuple[int, int, int] | None = None

    def load(self, folder: ModelFolder, request: GenerationRequest, share: float = 1.0) -> Loaded:
        """Load a model and the LoRAs, unless they are loaded, and choose a plan for a request without tags.

        share: share of the steps that are done, for the forecast.

        Raises ModelError, OutOfMemory, RequestError.
        """
        where = places(self._host, request.precision)
        if self._last is None or self._last[0] != folder:
            # The model before is not held while the next one comes.
            self._last = self._size = None
            residency = self._store.take(folder, where)
            self._last = folder, residency, self._job.loras.read(residency.model)
        _, residency, loras = self._last
        request, notes = adapt_request(request, loras, good_values(folder.path))
        for note in (*self._job.loras.notes, *notes):
            self._builder.tell(note)
        request = self._name_precision(request, where)
        self._choose_plan(residency, request, loras, share)
        return Loaded(residency, loras, request)

    def _choose_plan(self, residency: Residency, request: GenerationRequest, loras: LoraDeltas, share: float) -> None:
        """Choose a plan if the size is new. Otherwise the plan stays that with which the last clip ended."""
        size = request.width, request.height, request.frames
        if self._size == size:
            return
        choice = choose_for_run(self._host, residency, request, loras)
        self._size, self._builder.plan = size, choice.plan
        if lender := residency.model.lender:
            self._builder.add_note(f"The model has no autoencoder; the one of {lender} is used instead.")
        work = count_work(residency.model, request, is_turbo=loras.is_turbo, share=share)
        seconds = PACE.forecast(work, choice.plan)
        say(f"{format_count(request.frames, 'frame')}: {describe(choice, seconds)}")

    def _name_precision(self, request: GenerationRequest, where: Places) -> GenerationRequest:
        """Return the request with the precision that is really used, so that its settings reproduce the video."""
        used = dtype_name(where.model.dtype)
        asked = next(iter(asked_precisions(self._host, request.precision)), used)
        if asked != used:
            device = where.model.device.type
            self._builder.tell(f"The device ({device}) does not support {asked}; the video is made in {used}.")
        return replace(request, precision=used)
