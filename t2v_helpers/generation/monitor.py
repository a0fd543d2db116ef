"""Watches a run: reports to host and console, makes previews, and stops when asked to."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor

from ...modelscope.progress import Phase, Step
from ..host import Host, Progress
from ..terminal import green, say
from .preview import Previews
from .progress_bar import LABELS, ProgressBar

ENDS: dict[Phase, float] = {
    "enlarge": 0.04,
    "source": 0.1,
    "encode": 0.0,
    "sample": 0.94,
    "decode": 1.0,
    "interpolate": 1.0,
}
"""Where each phase of a stage ends on its part of the progress bar, 0..1."""


class Stopped(Exception):
    """The person ended a video before it was finished. denoised: the latents so far, if sampling had begun."""

    def __init__(self, denoised: Tensor | None) -> None:
        super().__init__()
        self.denoised = denoised


class Skipped(Stopped):
    """The person skipped a video: the run goes on with the next one."""


class Interrupted(Stopped):
    """The person ended the run."""


@contextmanager
def unskippable() -> Iterator[None]:
    """Turn a Skip into an Interrupt, for work at the end of an interrupted run."""
    try:
        yield
    except Skipped as stop:
        raise Interrupted(None) from stop


class Monitor:
    """The pipeline's `on_step` for one video (counted from 1) of several."""

    def __init__(self, host: Host, previews: Previews, video: int, videos: int) -> None:
        self._host, self._previews, self._video, self._videos = host, previews, video, videos
        self._bar = ProgressBar()
        self._denoised: Tensor | None = None
        self._begin = 0.0
        self._stage, self._number, self._stages = "", 0, 1

    def begin(self) -> None:
        """Report the start. A pending Skip is ignored: it was meant for the previous video."""
        self._report("loading the model" if self._video == 1 else "starting", 0)
        if self._host.stop_request() == "interrupt":
            raise Interrupted(None)

    def begin_stage(self, name: str, number: int, stages: int) -> None:
        """Begin a stage of the video. name: what comes before the phases in reports; number: counted from 0."""
        self._stage, self._number, self._stages, self._begin = name, number, stages, 0.0
        # What a person sees of the stage before is no unfinished state of this one.
        self._denoised = None
        if number:
            self._report(name.rstrip(": "), 0.0)
            self._check()

    def __call__(self, step: Step) -> None:
        self._bar(step)
        count = f" {step.done}/{step.total}" if step.phase != "encode" else ""
        self._report(self._stage + LABELS[step.phase] + count, self._share(step))
        if step.denoised is not None:
            self._denoised = step.denoised
            if self._host.wants_preview(step.done):
                self._previews.show(step.denoised)
        complete = step.phase == "decode" and step.done == step.total
        if not complete:
            self._check()

    def _share(self, step: Step) -> float:
        """Return how much of the video is done, 0..1. A phase begins where the one before it has ended."""
        share = self._begin + max(0.0, ENDS[step.phase] - self._begin) * step.done / step.total
        if step.done == step.total:
            self._begin = share
        return share

    def _check(self) -> None:
        """Raise Skipped or Interrupted if the person has asked for it."""
        stop = self._host.stop_request()
        if stop:
            raise (Skipped if stop == "skip" else Interrupted)(self._denoised)

    def saving(self) -> None:
        """Report that the files are being written."""
        self.close()
        self._report("saving", 1)

    def saved(self) -> None:
        """Print that the video is done."""
        say(green("done"))

    def close(self) -> None:
        """Finish the console's progress bar."""
        self._bar.close()

    def _report(self, text: str, share: float) -> None:
        several = f", video {self._video} of {self._videos}" if self._videos > 1 else ""
        share = (self._number + share) / self._stages
        self._host.show_progress(Progress(self._video, self._videos, share, text + several))
