"""Runs downloads in the background. They go on after the page is closed, and a page that asks again joins them."""

import time
from pathlib import Path
from threading import Event, Lock, Thread

from ...modelscope.errors import TextToVideoError
from ...modelscope.escape import logger
from ...modelscope.units import format_bytes, format_count
from .download import DownloadProgress, DownloadStopped, download
from .known import KnownModel

log = logger(__name__)


class Job:
    """One download, under way or ended.

    messages: what was done; error: the error that ended it, if it did not succeed.
    """

    def __init__(self, model: KnownModel, goal: Path) -> None:
        self.messages: list[str] = []
        self.error: TextToVideoError | None = None
        self._model, self._goal = model, goal
        self._progress = DownloadProgress(0, 0, "")
        self._begun, self._first = time.monotonic(), 0
        self._stop = Event()
        self._thread = Thread(target=self._run, name=f"download {model.key}", daemon=True)
        self._thread.start()

    @property
    def is_running(self) -> bool:
        """True if the download is under way."""
        return self._thread.is_alive()

    def stop(self) -> None:
        """End the download, which can be resumed later."""
        self._stop.set()

    def wait(self, seconds: float) -> None:
        """Wait until the download ends, but no longer than a number of seconds."""
        self._thread.join(seconds)

    def __str__(self) -> str:
        done, total, name = self._progress
        if not total:
            return "Asking the server..."
        return f"{name}: {format_bytes(done, 2)} of {format_bytes(total, 2)}{self._remaining(total - done)}"

    def _remaining(self, left: int) -> str:
        rate = (self._progress.done - self._first) / max(time.monotonic() - self._begun, 1e-3)
        if rate < 1:
            return ""
        minutes = max(1, round(left / rate / 60))
        return f", {format_bytes(rate, 2)}/s, about {format_count(minutes, 'minute')} left"

    def _run(self) -> None:
        try:
            self.messages = download(self._model, self._goal, self._report)
        except TextToVideoError as error:
            log.warning(error)
            self.error = error
        except Exception as error:
            log.exception("Unexpected error while downloading")
            self.error = TextToVideoError(f"The download failed unexpectedly: {error!r}.")

    def _report(self, progress: DownloadProgress) -> None:
        if self._stop.is_set():
            raise DownloadStopped("Stopped. What was downloaded is kept; press Download to continue.")
        if not self._progress.total:
            self._begun, self._first = time.monotonic(), progress.done
        self._progress = progress


class Jobs:
    """All downloads, at most one per model."""

    def __init__(self) -> None:
        self._jobs: dict[str, Job] = {}
        self._lock = Lock()

    def start(self, model: KnownModel, goal: Path) -> Job:
        """Return the model's download if one is under way, or else start one."""
        with self._lock:
            job = self._jobs.get(model.key)
            if job is None or not job.is_running:
                job = self._jobs[model.key] = Job(model, goal)
            return job

    def stop(self, key: str) -> None:
        """End a model's download; if it is not under way, end all that are."""
        key = str(key)
        under_way = {key: job for key, job in list(self._jobs.items()) if job.is_running}
        for job in [under_way[key]] if key in under_way else under_way.values():
            job.stop()


JOBS = Jobs()
