"""Handles Ctrl-C and SIGTERM with one line and an exit code, at any moment. Imports only light standard modules.

Nothing here has an effect outside a command that launcher.py has started: a WebUI handles its own signals.
"""

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any, NoReturn

CODES = {"SIGINT": 130, "SIGTERM": 143, "SIGHUP": 129, "SIGBREAK": 130}
"""Exit codes that shells expect. Each system has only some of these signals."""
AGAIN = 0.05
"""Seconds after which a signal that was lost is sent again."""


class Ended(KeyboardInterrupt):
    """The exception by which a signal ends the work, so that it is cleaned up on the way."""


class _State:
    """The state of the process that the signal handler needs to know."""

    def __init__(self) -> None:
        self.received = 0
        self.line = "Interrupted; nothing had been started."
        self.respond: Callable[[], None] | None = None
        self.holders = 0
        self.waits = False
        self.finishing = False
        self.lock = threading.RLock()


_state = _State()


def guard() -> None:
    """Handle signals from now on, including those that run.py has blocked. An ignored signal stays ignored."""
    numbers = {getattr(signal, name) for name in CODES if hasattr(signal, name)}
    for number in numbers:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _handle)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, numbers)


def ignore() -> None:
    """Ignore all signals from now on: the work is done."""
    for name in CODES:
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)


def set_last_line(line: str) -> None:
    """Set the line that the next signal prints. It has to be true at any moment from now on."""
    _state.line = line


def received() -> bool:
    """Return whether a signal has been received."""
    return bool(_state.received)


def leave() -> NoReturn:
    """End the process immediately, with the line and the signal's exit code."""
    with suppress(OSError):
        os.write(2, f"\n{_state.line}\n".encode(errors="backslashreplace"))
    os._exit(CODES[signal.Signals(_state.received).name])


@contextmanager
def call_on_signal(respond: Callable[[], None]) -> Iterator[None]:
    """Make the first signal call a function in the main thread instead of ending the process; a second one ends it."""
    before, _state.respond = _state.respond, respond
    try:
        yield
    finally:
        _state.respond = before


@contextmanager
def raising() -> Iterator[None]:
    """Make the first signal raise Ended, for code that cleans up on exceptions; a second one ends the process."""
    before, sys.unraisablehook = sys.unraisablehook, _raise_again
    try:
        with call_on_signal(_raise):
            yield
    finally:
        sys.unraisablehook = before


@contextmanager
def held() -> Iterator[None]:
    """Delay signals until the context ends in all threads: work that is begun in it is finished or cleaned up.

    Long work in it should call check() now and then.
    """
    with _state.lock:
        _state.holders += 1
    try:
        yield
    finally:
        with _state.lock:
            _state.holders -= 1
            due = _state.waits and not _state.holders
        if due:
            leave()


@contextmanager
def finishing() -> Iterator[None]:
    """Let work be finished although a signal has been received; a second one ends the process."""
    before, _state.finishing = _state.finishing, True
    try:
        yield
    finally:
        _state.finishing = before


def check() -> None:
    """Raise Ended if a signal has been received, unless work is being finished."""
    if _state.received and not _state.finishing:
        raise Ended


def _handle(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - a signal handler's signature
    if _state.received:
        _state.line = "Interrupted twice; unfinished files may have been left behind."
        leave()
    _state.received = number
    if _state.respond:
        _state.respond()
    elif _state.holders:
        _state.waits = True
    else:
        leave()


def _raise() -> NoReturn:
    raise Ended


def _raise_again(lost: Any) -> None:
    """Send a signal again whose exception was lost: Python drops exceptions raised while it destroys an object."""
    if not isinstance(lost.exc_value, Ended):
        sys.__unraisablehook__(lost)
        return
    number, _state.received = _state.received, 0
    threading.Timer(AGAIN, _send, (number,)).start()


def _send(number: int) -> None:
    """Send a signal to the main thread, if the system can do that: it may be waiting for something."""
    if sys.platform == "win32":
        signal.raise_signal(number)
    else:
        signal.pthread_kill(threading.main_thread().ident or 0, number)
