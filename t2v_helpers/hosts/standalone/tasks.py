"""The standalone page's queue: who runs, who waits, how far it is. The page asks as it asks the WebUI."""

import base64
import io
import time
from collections import deque
from collections.abc import Callable
from threading import Lock
from typing import Any

from PIL import Image

from ...host import Progress, Stop
from ..turns import TooManyWaiting, Turns

MOST_WAITING = 256
"""Runs that wait at once; one more is refused."""
MOST_FINISHED = 2 * MOST_WAITING
"""Ended tasks that are remembered, so that every page that waited hears of its own."""
PAUSE = 0.02


class Tasks:
    """One task runs at a time, in the order of arrival."""

    def __init__(self) -> None:
        self._change = Lock()
        self._turns = Turns(MOST_WAITING)
        self._running: str | None = None
        self._closed = False
        self._finished: deque[str] = deque(maxlen=MOST_FINISHED)
        self._begin()

    def _begin(self) -> None:
        self._start = time.monotonic()
        self._stop: Stop | None = None
        self._progress = Progress(1, 1, 0, "starting")
        self._preview, self._preview_id = "", 0

    def queued(self, function: Callable[..., Any], refuse: Callable[[str], Any]) -> Callable[..., Any]:
        """Make a function of a task's id and more wait for its turn. refuse: gives the answer where too many wait."""

        async def in_turn(task: str, *values: Any) -> Any:
            try:
                return await self._turns.take(self._work, task, function, *values)
            except TooManyWaiting:
                self._finished.append(task)
                return refuse(task)

        return in_turn

    def _work(self, task: str, function: Callable[..., Any], *values: Any) -> Any:
        with self._change:
            self._running = task
            self._begin()
        try:
            return function(task, *values)
        finally:
            with self._change:
                self._finished.append(task)
                self._running = None

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
        with self._change:
            if self._stop != "interrupt":
                self._stop = stop

    def close(self) -> None:
        """Ask the running task to stop, and begin no other."""
        self._closed = True
        self._turns.close()

    def wait_until_idle(self, seconds: float) -> bool:
        """Wait for the running task to end, but no longer than that; return whether it has."""
        end = time.monotonic() + seconds
        while self._running is not None and time.monotonic() < end:
            time.sleep(PAUSE)
        return self._running is None

    def stop_request(self) -> Stop | None:
        """What the running task was asked, once."""
        with self._change:
            stop, self._stop = self._stop, None
        return "interrupt" if self._closed else stop

    def report(self, task: str, seen_preview: int) -> dict[str, Any]:
        """The state of a task, in the words of the WebUI's /internal/progress."""
        active, waiting = self._running == task, self._turns.waiting
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
