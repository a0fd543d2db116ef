"""The queue of the page's runs: the running one, those that wait or were withdrawn, and the last ones' results."""

import asyncio
import contextvars
import functools
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Lock
from typing import Any, TypeVar

MOST_RESULTS = 16
"""Maximum number of runs whose results are kept for pages that are reloaded."""
MOST_WITHDRAWN = 1000
"""Maximum number of withdrawn runs that are remembered; more than can wait at once."""
MOST_FINISHED = 512
"""Maximum number of ended runs that are remembered, so that every waiting page learns that its run has ended."""
PAUSE = 0.02

Given = TypeVar("Given")


class TooManyWaiting(Exception):
    """The error for a run that arrives when no more can wait."""


class Tasks:
    """A queue of runs by their task ids. They run one at a time in the order of arrival; waiting takes no thread."""

    def __init__(self, most_waiting: int) -> None:
        self._most_waiting = most_waiting
        self._lock = Lock()
        self._waiting: dict[object, str] = {}
        self._running: str | None = None
        self._withdrawn: deque[str] = deque(maxlen=MOST_WITHDRAWN)
        self._finished: deque[str] = deque(maxlen=MOST_FINISHED)
        self._results: OrderedDict[str, Any] = OrderedDict()
        self._worker = ThreadPoolExecutor(1, "text2video")

    @property
    def running(self) -> str | None:
        """The task that is running, or None."""
        return self._running

    @property
    def waiting(self) -> list[str]:
        """The tasks that wait, in order."""
        with self._lock:
            return list(self._waiting.values())

    def is_finished(self, task: str) -> bool:
        """Return whether a task has ended, in whatever way."""
        with self._lock:
            return task in self._finished

    def results(self, task: str) -> Any:
        """Return a task's results, or None if they are not kept."""
        with self._lock:
            return self._results.get(task)

    async def take_turn(self, function: Callable[..., Any], task: str, *values: Any) -> Any:
        """Call a function with the task and the values when its turn comes. Raises TooManyWaiting immediately."""
        ticket = object()
        with self._lock:
            if len(self._waiting) >= self._most_waiting:
                raise TooManyWaiting
            try:
                future = self._worker.submit(self._work, ticket, contextvars.copy_context(), function, task, *values)
            except RuntimeError as error:
                # The worker has been shut down.
                raise TooManyWaiting from error
            self._waiting[ticket] = task
        # If a page's event is cancelled while it waits, it leaves the queue.
        future.add_done_callback(functools.partial(self._leave, ticket))
        return await asyncio.wrap_future(future)

    def _work(
        self, ticket: object, context: contextvars.Context, function: Callable[..., Any], task: str, *values: Any
    ) -> Any:
        self._leave(ticket)
        return context.run(function, task, *values)

    def _leave(self, ticket: object, _: "Future[Any] | None" = None) -> None:
        with self._lock:
            self._waiting.pop(ticket, None)

    def perform(self, task: str, make: Callable[[], Given], withdrawn: Given) -> Given:
        """Make a task's results while it counts as the running one, and keep them.

        Args:
            task: The task whose turn it is.
            make: Makes its results.
            withdrawn: The results if the task has been withdrawn.
        """
        results: Given | None = None
        try:
            results = make() if self._begin(task) else withdrawn
        finally:
            self._end(task, results)
        return results

    def _begin(self, task: str) -> bool:
        """Mark a task as running unless it was withdrawn, and return whether it is.

        Both happen under the lock, so that no Interrupt is lost in between.
        """
        with self._lock:
            self._running = None if task in self._withdrawn else task
            return self._running is not None

    def _end(self, task: str, results: Any) -> None:
        with self._lock:
            self._running = None
            self._remember(task, results)

    def refuse(self, task: str, results: Given) -> Given:
        """Keep the results of a task that never gets its turn, and return them."""
        with self._lock:
            self._remember(task, results)
        return results

    def _remember(self, task: str, results: Any) -> None:
        self._finished.append(task)
        if results is not None:
            self._results[task] = results
        while len(self._results) > MOST_RESULTS:
            self._results.popitem(last=False)

    def interrupt(self, tasks: Sequence[str], stop: Callable[[], None]) -> None:
        """Stop the running task if it is one of these; otherwise withdraw all of these."""
        with self._lock:
            if self._running in tasks:
                stop()
            else:
                self._withdrawn.extend(task for task in tasks if task not in self._withdrawn)

    def close(self) -> None:
        """Start no more tasks."""
        self._worker.shutdown(wait=False, cancel_futures=True)

    def wait_until_idle(self, seconds: float) -> bool:
        """Wait for the running task to end, but no longer than a number of seconds. Return whether it has ended."""
        end = time.monotonic() + seconds
        while self._running is not None and time.monotonic() < end:
            time.sleep(PAUSE)
        return self._running is None
