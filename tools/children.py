"""Child processes that end with their parent, and a lock that they share. Uses only the standard library."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TextIO

Child = subprocess.Popen[bytes]
SEPARATE: dict[str, Any]
"""Arguments of Popen for a process that Ctrl-C in the console does not reach; `end` ends it."""
if sys.platform == "win32":
    import msvcrt

    SEPARATE = {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP}
else:
    import fcntl

    SEPARATE = {"start_new_session": True}


def attend(line: list[str], respond: Callable[[Child, list[int]], None], **options: Any) -> tuple[int, list[int]]:
    """Run a child to its end. Return its exit code and the signals received meanwhile, which have no other effect.

    Args:
        line: The child's command line.
        respond: Called repeatedly with the child and the signals received, while the child runs.
        options: Arguments for Popen.
    """
    signals: list[int] = []
    # Ignored signals stay ignored: a shell ignores Ctrl-C for background processes.
    handlers = {number: signal.getsignal(number) for number in signal.valid_signals()}
    handlers = {number: handler for number, handler in handlers.items() if callable(handler)}
    for number in handlers:
        signal.signal(number, lambda number, _: signals.append(number))
    try:
        child = subprocess.Popen(line, **options)
        while child.poll() is None:
            if signals:
                respond(child, signals)
            with suppress(subprocess.TimeoutExpired):
                child.wait(0.1)
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    return child.returncode, signals


def end(child: Child, _: list[int]) -> None:
    """End a separate child and what it has started. They are in their own process group, and print no message."""
    with suppress(OSError):
        if sys.platform == "win32":
            child.send_signal(signal.CTRL_BREAK_EVENT)
        else:
            os.killpg(child.pid, signal.SIGTERM)


@contextmanager
def locked(path: Path, on_wait: Callable[[], None]) -> Iterator[None]:
    """Hold a lock, which the system releases when its last holder ends: children that inherit it hold it, too.

    Args:
        path: The file to lock; it is created, and not removed.
        on_wait: Called once if somebody else holds the lock.

    Raises:
        OSError: The file cannot be created.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        os.set_inheritable(file.fileno(), True)
        if not _try_lock(file):
            on_wait()
            while not _try_lock(file):
                time.sleep(0.2)
        yield


def _try_lock(file: TextIO) -> bool:
    """Try to take the lock, and return whether that worked. Without locks on the file system, it always does."""
    try:
        if sys.platform == "win32":
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    except OSError:
        return True
    return True
