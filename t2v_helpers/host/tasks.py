"""The standalone page's queue: who runs, who waits, how far it is. The page asks as it asks the WebUI."""

import base64
import io
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Condition
from typing import Any

from PIL import Image

from .interface import Progress, Stop

MOST_FINISHED = 64


class Tasks:
    """One task runs at a time, in the order of arrival."""

    def __init__(self) -> None:
        self._turn = Condition()
        self._waiting: OrderedDict[object, str] = OrderedDict()
        self._running: str | None = None
        self._closed = False
        self._finished: deque[str] = deque(maxlen=MOST_FINISHED)
        self._begin()

    def _begin(self) -> None:
        self._start = time.monotonic()
        self._stop: Stop | None = None
        self._progress = Progress(1, 1, 0, "starting")
        self._preview, self._preview_id = "", 0

    def queued(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """A function of a task's id and more, run when its turn comes."""

        def in_turn(task: str, *values: Any) -> Any:
            with self._turn_of(task):
                return function(task, *values)

        return in_turn

    @contextmanager
    def _turn_of(self, task: str) -> Iterator[None]:
        ticket = object()
        with self._turn:
            self._waiting[ticket] = task
            self._turn.wait_for(lambda: self._running is None and next(iter(self._waiting)) is ticket)
            self._running = self._waiting.pop(ticket)
            self._begin()
        try:
            yield
        finally:
            with self._turn:
                self._finished.append(task)
                self._running = None
                self._turn.notify_all()

    def show_progress(self, progress: Progress) -> None:
        """Of the running task."""
        self._progress = progress

    def show_preview(self, image: Image.Image) -> None:
        """Of the running task."""
        data = io.BytesIO()
        image.save(data, "PNG")
        self._preview = f"data:image/png;base64,{base64.b64encode(data.getvalue()).decode()}"
        self._preview_id += 1

    def ask(self, stop: Stop) -> None:
        """Ask the running task to stop. To end all is more than to end one video."""
        with self._turn:
            if self._stop != "interrupt":
                self._stop = stop

    def close(self) -> None:
        """Ask every task to stop, those to come as well."""
        self._closed = True

    def stop_request(self) -> Stop | None:
        """What the running task was asked, once."""
        with self._turn:
            stop, self._stop = self._stop, None
        return "interrupt" if self._closed else stop

    def report(self, task: str, seen_preview: int) -> dict[str, Any]:
        """The state of a task, in the words of the WebUI's /internal/progress."""
        active, waiting = self._running == task, list(self._waiting.values())
        answer = {"active": active, "queued": task in waiting, "completed": task in self._finished, "progress": 0.0}
        if not active:
            place = f"In queue: {waiting.index(task) + 1}/{len(waiting)}" if task in waiting else "Waiting..."
            return answer | {"eta": None, "live_preview": None, "id_live_preview": -1, "textinfo": place}
        at = self._progress
        share = min((at.video - 1 + at.share) / at.videos, 1)
        elapsed = time.monotonic() - self._start
        return answer | {
            "progress": share,
            "eta": elapsed / share - elapsed if share else None,
            "live_preview": self._preview if self._preview_id != seen_preview and self._preview else None,
            "id_live_preview": self._preview_id,
            "textinfo": at.text,
        }
