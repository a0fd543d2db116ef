"""Runs that take turns: one at a time, in the order of arrival, and without a thread for whoever waits."""

import asyncio
import contextvars
import functools
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Lock
from typing import Any


class TooManyWaiting(Exception):
    """No further run can wait."""


class Turns:
    """A queue of runs and the one thread that works on it. most: how many may wait."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._lock = Lock()
        self._waiting: dict[object, str] = {}
        self._worker = ThreadPoolExecutor(1, "text2video")

    @property
    def waiting(self) -> list[str]:
        """The tasks that wait, in their order."""
        with self._lock:
            return list(self._waiting.values())

    async def take(self, function: Callable[..., Any], task: str, *values: Any) -> Any:
        """Call the function with the task and the values when its turn comes. Raises TooManyWaiting at once."""
        ticket = object()
        with self._lock:
            if len(self._waiting) >= self._most:
                raise TooManyWaiting
            try:
                future = self._worker.submit(self._work, ticket, contextvars.copy_context(), function, task, *values)
            except RuntimeError as error:
                # Nothing begins after the end.
                raise TooManyWaiting from error
            self._waiting[ticket] = task
        # A page's event that is cancelled while it waits gives its place away.
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

    def close(self) -> None:
        """Begin no further run."""
        self._worker.shutdown(wait=False, cancel_futures=True)
