"""A run: a request becomes a job, the job's model is loaded, and its videos are made and saved one after the other."""

from torch import Tensor

from ..host import Host
from ..models.folders import ModelFolder
from ..models.known import warn_beyond_training
from ..request import GenerationRequest
from ..settings import KEEP, KEEP_NOTHING, SAVE_UNFINISHED
from ..signals import Ended, finishing
from .job import Job, ModelFolders, prepare_job
from .kept_model import ModelStore
from .loading import Loader
from .monitor import Interrupted, Monitor, Skipped, unskippable
from .outcome import Outcome, OutcomeBuilder
from .preview import Previews
from .save import OnFile, VideoSaver
from .stages import Made, VideoStages
from .traceback_frames import forget_frames

DRIFTED = (
    "A clip that was joined on has other colours or another contrast than the first one. The video up to there was "
    "saved, too."
)
STORE = ModelStore()
"""The model that the process keeps between runs."""


def run(
    host: Host,
    folder: ModelFolder,
    request: GenerationRequest,
    on_file: OnFile = lambda _: None,
    second: ModelFolder | None = None,
) -> Outcome:
    """Make and save all videos of a request. The outcome holds what was made, and what went wrong.

    Args:
        host: Provides the device, folders and settings.
        folder: The model's folder.
        request: The request.
        on_file: Called with every file as soon as it is complete.
        second: The folder of the second pass's model, if the request does not name one of the host's.
    """
    builder = OutcomeBuilder()
    with builder.catch_end(), host.room(lambda: STORE.finish_run(KEEP_NOTHING)):
        try:
            # Caught before the host's own models come back: an error that is still propagating would hold our model.
            with builder.catch_end():
                job = prepare_job(host, ModelFolders(folder, second), request, builder.add_problem)
                _Batch(host, job, builder, on_file).make()
        finally:
            STORE.finish_run(host.setting(KEEP), builder.plan)
    return builder.outcome()


class _Batch:
    """The batch of a job's videos, which are made one after the other."""

    def __init__(self, host: Host, job: Job, builder: OutcomeBuilder, on_file: OnFile) -> None:
        self._host, self._job, self._builder = host, job, builder
        self._loader = Loader(host, job, STORE, builder)
        self._saver = VideoSaver(host, job, on_file, builder)

    def make(self) -> None:
        """Make all videos. The model is loaded within the first one, so that a person can interrupt before that."""
        for note in (warn_beyond_training(self._job.folder.path, self._job.request), *self._job.reading.notes):
            if note:
                self._builder.tell(note)
        requests, previews = self._job.plain_request().batch(), Previews(self._host)
        for number, request in enumerate(requests, 1):
            monitor = Monitor(self._host, previews, number, len(requests))
            try:
                monitor.begin()
                self._make_video(request, monitor)
            except Skipped:
                self._builder.add_skipped()
            finally:
                monitor.close()

    def _make_video(self, request: GenerationRequest, monitor: Monitor) -> None:
        """Make and save a video. If a later stage ends early, what the one before has made is saved."""
        stages = VideoStages(self._job, self._loader, self._builder, request, monitor)
        made: Made | None = None
        try:
            for stage in stages.run():
                if made and stage.drifted > made.drifted:
                    self._builder.tell(DRIFTED)
                    self._save(made, monitor)
                made = stage
        except (Exception, Ended) as stop:
            denoised = _take_denoised(stop)
            with unskippable(), finishing():
                if made is None and denoised is not None and self._host.setting(SAVE_UNFINISHED):
                    made = stages.decode_unfinished(denoised)
                if made:
                    self._save(made, monitor, finished=False)
            raise
        assert made
        self._save(made, monitor)

    def _save(self, made: Made, monitor: Monitor, *, finished: bool = True) -> None:
        monitor.saving()
        plan = self._builder.plan
        self._builder.add_video(self._saver.save(made, eight_bits=bool(plan and plan.eight_bits), finished=finished))
        monitor.saved()


def _take_denoised(stop: BaseException) -> Tensor | None:
    """Return the latents so far of a run that a person has interrupted, and free what the exception holds besides."""
    if not isinstance(stop, Interrupted):
        return None
    denoised, stop.denoised = stop.denoised, None
    forget_frames(stop)
    return denoised
