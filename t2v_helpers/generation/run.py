"""A run: a request becomes a job, the job's model is loaded, and its videos are made and saved one after the other."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from torch import Tensor

from ...modelscope.device import dtype_name
from ...modelscope.encode_decode import decode
from ...modelscope.memory.lora_deltas import LoraDeltas
from ...modelscope.memory.plan import Plan
from ...modelscope.memory.residency import Residency
from ...modelscope.pipeline import encode_source, generate
from ...modelscope.run_options import RunOptions
from ..host import Host
from ..models.folders import ModelFolder
from ..models.known import good_values, warn_beyond_training
from ..places import Places, asked_precisions, places
from ..request import GenerationRequest
from ..settings import KEEP, KEEP_NOTHING, SAVE_UNFINISHED
from .job import Job, prepare_job
from .kept_model import ModelStore
from .limits import choose_for_run
from .monitor import Interrupted, Monitor, Skipped, unskippable
from .outcome import Outcome, OutcomeBuilder
from .preview import Previews
from .save import OnFile, VideoSaver
from .traceback_frames import forget_frames
from .turbo_request import adapt_request

STORE = ModelStore()
"""The model that the process keeps between runs."""


def run(host: Host, folder: ModelFolder, request: GenerationRequest, on_file: OnFile = lambda _: None) -> Outcome:
    """Make and save all videos of a request. The outcome holds what was made, and what went wrong.

    Args:
        host: Provides the device, folders and settings.
        folder: The model's folder.
        request: The request.
        on_file: Called with every file as soon as it is complete.
    """
    builder = OutcomeBuilder()
    with builder.catch_end(), host.room(lambda: STORE.finish_run(KEEP_NOTHING)):
        try:
            # Caught before the host's own models come back: an error that is still propagating would hold our model.
            with builder.catch_end():
                job = prepare_job(host, folder, request, builder.add_problem)
                _Batch(host, job, builder, on_file).make()
        finally:
            STORE.finish_run(host.setting(KEEP), builder.plan)
    return builder.outcome()


class _Loaded(NamedTuple):
    """Resources shared by all videos of a job. requests: one per video, without tags, adapted to the LoRAs."""

    residency: Residency
    loras: LoraDeltas
    requests: list[GenerationRequest]


class _Batch:
    """The batch of a job's videos, which are made one after the other."""

    def __init__(self, host: Host, job: Job, builder: OutcomeBuilder, on_file: OnFile) -> None:
        self._host, self._job, self._builder = host, job, builder
        self._saver = VideoSaver(host, job, on_file, builder.add_problem)
        self._source = job.reading.source

    def make(self) -> None:
        """Make all videos. The model is loaded within the first one, so that a person can interrupt before that."""
        if warning := warn_beyond_training(self._job.folder.path, self._job.request):
            self._builder.add_note(warning)
        for note in self._job.reading.notes:
            self._builder.add_note(note)
        count, loaded, previews = self._job.request.batch_count, None, Previews(self._host)
        for index in range(count):
            monitor = Monitor(self._host, previews, index + 1, count)
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
            self._builder.add_note(f"The model has no autoencoder; the one of {model.lender} is used instead.")
        monitor.say(f"{request.frames} frames: {choice}")
        return _Loaded(residency, loras, request.batch())

    def _adapt_request(self, loras: LoraDeltas, recommended: Mapping[str, Any], monitor: Monitor) -> GenerationRequest:
        """Return the request without tags, adapted to the LoRAs."""
        request, notes = adapt_request(self._job.plain_request(), loras, recommended)
        for note in (*self._job.loras.notes, *notes):
            if self._builder.add_note(note):
                monitor.say(note)
        return request

    def _name_precision(self, request: GenerationRequest, where: Places, monitor: Monitor) -> GenerationRequest:
        """Return the request with the precision that is really used, so that its settings reproduce the video."""
        used = dtype_name(where.model.dtype)
        asked = next(iter(asked_precisions(self._host, request.precision)), used)
        note = f"The device ({where.model.device.type}) does not support {asked}; the video is made in {used}."
        if asked != used and self._builder.add_note(note):
            monitor.say(note)
        return replace(request, precision=used)

    def _make_video(self, loaded: _Loaded, request: GenerationRequest, monitor: Monitor) -> None:
        options = self._options(loaded, monitor)
        try:
            if self._source:
                # Once for all videos.
                self._source = encode_source(loaded.residency, self._source, options)
            frames = generate(loaded.residency, request, replace(options, plan=self._plan), self._source)
        except Interrupted as stop:
            denoised, stop.denoised = stop.denoised, None
            forget_frames(stop)
            if denoised is not None and self._host.setting(SAVE_UNFINISHED):
                with unskippable():
                    frames = decode(loaded.residency, denoised, replace(options, plan=self._plan))
                    self._save(request, frames, monitor, finished=False)
            raise
        self._save(request, frames, monitor)

    def _options(self, loaded: _Loaded, monitor: Monitor) -> RunOptions:
        return RunOptions(
            plan=self._plan,
            loras=loaded.loras,
            on_step=monitor,
            notify=self._builder.change_plan,
            tiny_decoder=self._job.tiny_decoder,
        )

    def _save(self, request: GenerationRequest, frames: Tensor, monitor: Monitor, *, finished: bool = True) -> None:
        monitor.saving()
        eight_bits = self._plan.eight_bits
        video = self._saver.save(self._job.with_tags(request), frames, eight_bits=eight_bits, finished=finished)
        self._builder.add_video(video)
        monitor.saved()

    @property
    def _plan(self) -> Plan:
        """The plan in use, which changes when memory runs out."""
        assert self._builder.plan
        return self._builder.plan
