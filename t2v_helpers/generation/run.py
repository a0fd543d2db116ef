"""A run: a request becomes a job, the job's model is loaded, and its videos are made and saved one after the other."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from torch import Tensor

from ...modelscope.device import dtype_name
from ...modelscope.memory.lora_deltas import LoraDeltas
from ...modelscope.memory.plan import Plan
from ...modelscope.memory.residency import Residency
from ...modelscope.pipeline import decode, generate
from ..host import Host
from ..models.folders import ModelFolder
from ..models.known import good_values, past_training
from ..places import Places, asked_precisions, places
from ..request import GenerationRequest
from ..settings import KEEP, KEEP_NOTHING, SAVE_UNFINISHED
from .job import Job, prepare_job
from .loras import adapt_request
from .model_store import ModelStore
from .monitor import Interrupted, Monitor, Skipped, unskippable
from .outcome import Outcome, OutcomeBuilder
from .plan import choose_for_run
from .save import OnFile, VideoSaver
from .traceback_frames import forget_frames

STORE = ModelStore()
"""The process's model between runs."""


def run(host: Host, folder: ModelFolder, request: GenerationRequest, on_file: OnFile = lambda _: None) -> Outcome:
    """Make and save all videos of a request. What goes wrong is in the outcome, beside what was made before.

    Args:
        host: Whose device, folders and settings count.
        folder: The model's.
        request: What was asked for.
        on_file: Called with every file as soon as it is whole.
    """
    builder = OutcomeBuilder()
    with builder.catch_end(), host.room(lambda: STORE.finish_run(KEEP_NOTHING)):
        try:
            # Caught before the host's own models come back: an error on its way would still hold ours.
            with builder.catch_end():
                job = prepare_job(host, folder, request, builder.add_problem)
                _Batch(host, job, builder, on_file).make()
        finally:
            STORE.finish_run(host.setting(KEEP), builder.plan)
    return builder.outcome()


class _Loaded(NamedTuple):
    """What all videos of a job are made with. requests: one per video, without tags, as the LoRAs need them."""

    residency: Residency
    loras: LoraDeltas
    requests: list[GenerationRequest]


class _Batch:
    """Makes a job's videos."""

    def __init__(self, host: Host, job: Job, builder: OutcomeBuilder, on_file: OnFile) -> None:
        self._host, self._job, self._builder = host, job, builder
        self._saver = VideoSaver(host, job, on_file, builder.add_problem)

    def make(self) -> None:
        """Make all videos. The model is loaded for the first one, so that a person can interrupt before."""
        if warning := past_training(self._job.folder.path, self._job.request):
            self._builder.add_note(warning)
        count, loaded = self._job.request.batch_count, None
        for index in range(count):
            monitor = Monitor(self._host, index + 1, count)
            try:
                monitor.begin()
                loaded = loaded or self._load(monitor)
                self._make_video(loaded, loaded.requests[index], monitor)
            except Skipped:
                self._builder.add_skipped()
            finally:
                monitor.close()

    def _load(self, monitor: Monitor) -> _Loaded:
        """Load the model and the LoRAs, and choose a plan. Raises ModelError, OutOfMemory, RequestError."""
        where = places(self._host, self._job.request.precision)
        residency = STORE.take(self._job.folder, where)
        model = residency.model
        loras = self._job.loras.read(model)
        request = self._adapt_request(loras, good_values(self._job.folder.path), monitor)
        request = self._name_precision(request, where, monitor)
        choice = choose_for_run(self._host, residency, request, loras)
        self._builder.plan = choice.plan
        if model.lender:
            self._builder.add_note(f"The model has no autoencoder; this is the one of {model.lender}.")
        monitor.say(f"{request.frames} frames: {choice}")
        return _Loaded(residency, loras, request.batch())

    def _adapt_request(self, loras: LoraDeltas, recommended: Mapping[str, Any], monitor: Monitor) -> GenerationRequest:
        """Return the request without tags, as the LoRAs need it."""
        request, notes = adapt_request(self._job.plain_request(), loras, recommended)
        for note in (*self._job.loras.notes, *notes):
            if self._builder.add_note(note):
                monitor.say(note)
        return request

    def _name_precision(self, request: GenerationRequest, where: Places, monitor: Monitor) -> GenerationRequest:
        """Return the request with the precision that it is computed in, so that its settings bring back the video."""
        used = dtype_name(where.model.dtype)
        asked = next(iter(asked_precisions(self._host, request.precision)), used)
        note = f"The device ({where.model.device.type}) does not have {asked}; the video is made in {used}."
        if asked != used and self._builder.add_note(note):
            monitor.say(note)
        return replace(request, precision=used)

    def _make_video(self, loaded: _Loaded, request: GenerationRequest, monitor: Monitor) -> None:
        residency, loras, _ = loaded
        notify = self._builder.change_plan
        try:
            frames = generate(residency, request, monitor, self._plan, notify, loras)
        except Interrupted as stop:
            denoised, stop.denoised = stop.denoised, None
            forget_frames(stop)
            if denoised is not None and self._host.setting(SAVE_UNFINISHED):
                with unskippable():
                    frames = decode(residency, denoised, monitor, self._plan, notify)
                    self._save(request, frames, monitor, finished=False)
            raise
        self._save(request, frames, monitor)

    def _save(self, request: GenerationRequest, frames: Tensor, monitor: Monitor, *, finished: bool = True) -> None:
        monitor.saving()
        eight_bits = self._plan.eight_bits
        video = self._saver.save(self._job.with_tags(request), frames, eight_bits=eight_bits, finished=finished)
        self._builder.add_video(video)
        monitor.saved()

    @property
    def _plan(self) -> Plan:
        """The plan in use, which changes where memory runs out."""
        assert self._builder.plan
        return self._builder.plan
