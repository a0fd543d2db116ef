"""A request to files: load the model, make each video of the batch, save it in every format, keep what is done."""

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor

from ...modelscope.errors import TextToVideoError
from ...modelscope.escape import logger
from ...modelscope.memory.deltas import AppliedLoras
from ...modelscope.memory.plan import Plan
from ...modelscope.model import Model
from ...modelscope.pipeline import decode, generate
from ..host import Host
from ..infotext import write_infotext
from ..models.folders import ModelFolder
from ..models.known import good_values, past_training
from ..places import places
from ..request import GenerationRequest
from ..settings import (
    FOLDER_PATTERN,
    KEEP,
    KEEP_NOTHING,
    NAME_PATTERN,
    OUTPUT_FOLDER,
    SAVE_INFOTEXT,
    SAVE_TEXT,
    SAVE_UNFINISHED,
    VAE,
)
from ..signals import Ended, held
from ..video.ffmpeg import OutputError
from ..video.formats import FORMATS
from ..video.write import cannot_write, check_format, check_soundtrack, write_video
from .forecast import choose_for_run
from .loras import Wardrobe, suited, without_tags
from .model_store import ModelStore
from .monitor import Interrupted, Monitor, Skipped, unskippable
from .outputs import Destination, chosen_folder, make_folder, pattern_values, reserved_stem
from .release import forget_frames

log = logger(__name__)
STORE = ModelStore()
"""The process's model between runs."""
Finished = Callable[[Path], None]


@dataclass(frozen=True)
class Video:
    """One saved video. files: in the order of the request's formats; those that failed are missing."""

    request: GenerationRequest
    infotext: str
    files: tuple[Path, ...]
    finished: bool = True


@dataclass
class Outcome:
    """All that came of a request.

    error: what ended it early; problems: what else did not work; notes: what was done otherwise than planned; plan:
    the memory plan it ended with.
    """

    videos: list[Video] = field(default_factory=list)
    skipped: int = 0
    interrupted: bool = False
    error: Exception | None = None
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    plan: Plan | None = None


def run(host: Host, folder: ModelFolder, request: GenerationRequest, finished: Finished = lambda _: None) -> Outcome:
    """Make and save all videos of a request. What goes wrong is told in the outcome, beside what was made before.

    finished: told every file as soon as it is whole.
    """
    outcome = Outcome()
    with _told_in(outcome), host.room(lambda: STORE.settle(KEEP_NOTHING)):
        try:
            # Told before the host's own models come back: an error on its way would still hold ours.
            with _told_in(outcome):
                _Run(host, folder, outcome, finished).make(request)
        finally:
            STORE.settle(host.setting(KEEP), outcome.plan)
    return outcome


@contextmanager
def _told_in(outcome: Outcome) -> Iterator[None]:
    try:
        yield
    except (Interrupted, Ended) as stop:
        outcome.interrupted = True
        forget_frames(stop)
    except Exception as error:
        if not isinstance(error, TextToVideoError):
            log.exception("Unexpected error")
        outcome.error = outcome.error or error
        forget_frames(error)


def destination(host: Host) -> Destination:
    """Where the settings put videos. Raises OutputError."""
    chosen = host.setting(OUTPUT_FOLDER).strip()
    folder = chosen_folder(chosen) if chosen else host.outputs_folder()
    return Destination(folder, host.setting(FOLDER_PATTERN), host.setting(NAME_PATTERN))


class _Run:
    def __init__(self, host: Host, folder: ModelFolder, outcome: Outcome, finished: Finished) -> None:
        self._host, self._folder, self._outcome, self._finished = host, folder, outcome, finished
        self._where = destination(host)
        self._wardrobe = Wardrobe({}, [])
        self._loras: AppliedLoras | None = None

    def make(self, request: GenerationRequest) -> None:
        """All videos. What can be known to fail is tried first: it must not fail after an hour's sampling."""
        request = dataclasses.replace(request, formats=self._writable(request.formats))
        self._wardrobe = Wardrobe.of(self._host.lora_folder(), request)
        if request.soundtrack:
            check_soundtrack(request.soundtrack)
        names = pattern_values(request, self._folder.name)
        with held(), reserved_stem(make_folder(self._where, names), self._where.name_pattern, names):
            pass
        self._outcome.notes += filter(None, [past_training(self._folder.path, request)])
        batch = request.batch()
        for number, one in enumerate(batch, 1):
            monitor = Monitor(self._host, number, len(batch))
            try:
                monitor.begin()
                self._video(one, monitor)
            except Skipped:
                self._outcome.skipped += 1
            finally:
                monitor.close()

    def _changed(self, words: str, plan: Plan) -> None:
        log.warning(words)
        if words not in self._outcome.notes:
            self._outcome.notes.append(words)
        self._outcome.plan = plan

    def _writable(self, formats: tuple[str, ...]) -> tuple[str, ...]:
        """The formats that ffmpeg knows how to write. Raises OutputError where that is none."""
        failures = {}
        for name in formats:
            try:
                check_format(FORMATS[name])
            except OutputError as error:
                failures[name] = error
        if len(failures) == len(formats):
            raise failures[formats[0]]
        self._outcome.problems += map(str, failures.values())
        return tuple(name for name in formats if name not in failures)

    def _video(self, request: GenerationRequest, monitor: Monitor) -> None:
        residency = STORE.take(self._folder, places(*self._host.devices(), self._host.setting(VAE)))
        model = residency.model
        request, loras = self._dressed(model, request, monitor)
        plain = without_tags(request)
        if self._outcome.plan is None:
            choice = choose_for_run(self._host, residency, plain, loras)
            self._outcome.plan = choice.plan
            if model.lender:
                self._outcome.notes.append(f"The model has no autoencoder; this is the one of {model.lender}.")
            monitor.say(f"{request.frames} frames: {choice}")
        try:
            frames = generate(model, plain, monitor, self._outcome.plan, self._changed, loras, residency=residency)
        except Interrupted as stop:
            denoised, stop.denoised = stop.denoised, None
            forget_frames(stop)
            if denoised is not None and self._host.setting(SAVE_UNFINISHED):
                with unskippable():
                    self._save(
                        request,
                        decode(model, denoised, monitor, self._outcome.plan, self._changed, residency),
                        monitor,
                        finished=False,
                    )
            raise
        self._save(request, frames, monitor)

    def _dressed(
        self, model: Model, request: GenerationRequest, monitor: Monitor
    ) -> tuple[GenerationRequest, AppliedLoras]:
        """The request as its LoRAs need it, and these."""
        if self._loras is None:
            self._loras = self._wardrobe.read(model)
        request, words = suited(request, self._loras, good_values(self._folder.path))
        for note in (*self._wardrobe.notes, *words):
            if note not in self._outcome.notes:
                self._outcome.notes.append(note)
                monitor.say(note)
        return request, self._loras

    def _save(self, request: GenerationRequest, frames: Tensor, monitor: Monitor, *, finished: bool = True) -> None:
        """Write the video in every format. One that fails does not keep the others from being written."""
        monitor.saving()
        plan = self._outcome.plan
        infotext = write_infotext(request, self._folder.name, eight_bits=plan is not None and plan.eight_bits)
        names = pattern_values(request, self._folder.name)
        folder = make_folder(self._where, names)
        failures: list[OutputError] = []
        with held(), reserved_stem(folder, self._where.name_pattern, names) as stem:
            files = list(self._written(stem, frames, request, infotext, failures))
            if files and self._host.setting(SAVE_TEXT):
                try:
                    _write_text(stem.with_name(f"{stem.name}.txt"), infotext)
                except OutputError as error:
                    failures.append(error)
        if not files:
            raise failures[0]
        self._outcome.problems += map(str, failures)
        self._outcome.videos.append(Video(request, infotext, tuple(files), finished))
        monitor.saved()

    def _written(
        self, stem: Path, frames: Tensor, request: GenerationRequest, infotext: str, failures: list[OutputError]
    ) -> Iterator[Path]:
        inside = infotext if self._host.setting(SAVE_INFOTEXT) else ""
        for kind in (FORMATS[name] for name in request.formats):
            path = stem.with_name(stem.name + kind.suffix)
            try:
                lacks = write_video(path, frames, request.fps, kind, inside, request.soundtrack)
            except OutputError as error:
                failures.append(error)
                continue
            failures += [OutputError(lacks)] if lacks else []
            self._finished(path)
            yield path


def _write_text(path: Path, infotext: str) -> None:
    try:
        path.write_text(infotext + "\n", encoding="utf-8")
    except OSError as error:
        raise cannot_write(path.parent, error) from error
