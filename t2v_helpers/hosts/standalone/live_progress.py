"""The progress of the standalone page's running task, and requests to stop it, with the same answers as the WebUI's."""

import base64
import io
import time
from threading import Lock
from typing import Any

from PIL import Image

from ...host import Progress, Stop
from ...tasks import Tasks


class LiveProgress:
    """Progress and preview of the running task, and its Interrupt and Skip."""

    def __init__(self, tasks: Tasks) -> None:
        self._tasks = tasks
        self._stop_lock = Lock()
        self._closed = False
        self.begin()

    def begin(self) -> None:
        """Forget the previous task. Called before a new task is the running one, so before it can be asked to stop."""
        self._start = time.monotonic()
        self._stop: Stop | None = None
        self._progress = Progress(1, 1, 0, "starting")
        self._preview, self._preview_id = "", 0

    def show_progress(self, progress: Progress) -> None:
        """Store the running task's progress."""
        self._progress = progress

    def show_preview(self, image: Image.Image) -> None:
        """Store the running task's preview."""
        data = io.BytesIO()
        image.save(data, "PNG")
        self._preview = f"data:image/png;base64,{base64.b64encode(data.getvalue()).decode()}"
        self._preview_id += 1

    def ask(self, stop: Stop) -> None:
        """Ask the running task to stop. Interrupt, which ends the whole run, is not replaced by Skip."""
        with self._stop_lock:
            if self._stop != "interrupt":
                self._stop = stop

    def close(self) -> None:
        """Ask the running task and all later ones to stop."""
        self._closed = True

    def stop_request(self) -> Stop | None:
        """Return a request to stop the running task, once, or None."""
        with self._stop_lock:
            stop, self._stop = self._stop, None
        return "interrupt" if self._closed else stop

    def report(self, task: str, seen_preview: int) -> dict[str, Any]:
        """Return the state of a task, with the keys of the WebUI's /internal/progress."""
        active, waiting = self._tasks.running == task, self._tasks.waiting
        queued, completed = task in waiting, self._tasks.is_finished(task)
        answer = {"active": active, "queued": queued, "completed": completed, "progress": 0.0}
        if not active:
            place = f"In queue: {waiting.index(task) + 1}/{len(waiting)}" if queued else "Waiting..."
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
