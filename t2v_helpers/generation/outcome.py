"""The outcome of a run: the videos that were made, and anything that failed or did not go as planned."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from ...modelscope.errors import TextToVideoError
from ...modelscope.escape import logger
from ...modelscope.memory.plan import Plan
from ..request import GenerationRequest
from ..signals import Ended
from ..terminal import say
from .monitor import Interrupted
from .traceback_frames import forget_frames

log = logger(__name__)


@dataclass(frozen=True)
class Video:
    """One saved video.

    files: in the order of the request's formats, without those that failed.
    frames: the number of frames in the first file.
    finished: whether it was not ended before all stages were done.
    """

    request: GenerationRequest
    infotext: str
    files: tuple[Path, ...]
    frames: int
    finished: bool = True


@dataclass(frozen=True)
class Outcome:
    """The outcome of a run.

    Args:
        videos: The saved videos, in the order in which they were made.
        skipped: Number of videos that a person skipped.
        interrupted: Whether a person ended the run.
        error: The error that ended the run early, if one did.
        problems: Other failures, such as that of one format among several.
        notes: Changes to what was planned.
        plan: The memory plan that the run ended with.
    """

    videos: list[Video] = field(default_factory=list)
    skipped: int = 0
    interrupted: bool = False
    error: Exception | None = None
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    plan: Plan | None = None


class OutcomeBuilder:
    """A collector of what happens during a run. Nobody else writes an outcome."""

    def __init__(self) -> None:
        self._videos: list[Video] = []
        self._skipped, self._interrupted = 0, False
        self._error: Exception | None = None
        self._problems: list[str] = []
        self._notes: list[str] = []
        self.plan: Plan | None = None
        """The plan in use; None before the first video."""

    @contextmanager
    def catch_end(self) -> Iterator[None]:
        """Record an interruption or error that ends the block, instead of raising it. Only the first error is kept."""
        try:
            yield
        except (Interrupted, Ended) as stop:
            self._interrupted = True
            forget_frames(stop)
        except Exception as error:
            if not isinstance(error, TextToVideoError):
                log.exception("Unexpected error")
            self._error = self._error or error
            forget_frames(error)

    def add_video(self, video: Video) -> None:
        """Record a saved video."""
        self._videos.append(video)

    def add_skipped(self) -> None:
        """Record that a person skipped a video."""
        self._skipped += 1

    def add_problem(self, problem: Exception) -> None:
        """Record a failure that does not end the run."""
        self._problems.append(str(problem))

    def add_note(self, note: str) -> bool:
        """Record a change to what was planned, once. Return whether it is new."""
        is_new = note not in self._notes
        if is_new:
            self._notes.append(note)
        return is_new

    def tell(self, note: str) -> None:
        """Record a change to what was planned, and print it, once."""
        if self.add_note(note):
            say(note)

    def change_plan(self, reason: str, plan: Plan) -> None:
        """Record that the run goes on with another plan, and log the reason."""
        log.warning(reason)
        self.add_note(reason)
        self.plan = plan

    def outcome(self) -> Outcome:
        """Return the outcome as recorded so far."""
        return Outcome(
            list(self._videos),
            self._skipped,
            self._interrupted,
            self._error,
            list(self._problems),
            list(self._notes),
            self.plan,
        )
