"""Files that stay locked while their owner works. The system frees the lock when the process ends, however it ends."""

import errno
import json
import os
import stat
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path
from typing import Any, NamedTuple

from ..modelscope.json_files import parse_json

_HELD = {errno.EACCES, errno.EAGAIN, errno.EWOULDBLOCK}
"""What the system says where another has the lock; all else means that there are no locks on that drive."""
_FLAGS = os.O_RDWR | getattr(os, "O_BINARY", 0) | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
_LONGEST_NOTE = 1 << 16
_PATIENCE, _PAUSE = 5.0, 0.002
"""Seconds for which to wait for whoever looks whether a lock is free."""


class Note(NamedTuple):
    """What its owner wrote into the file.

    locked: whether it could be locked; source, goal: what is being copied, and to where; empty where nothing is.
    """

    locked: bool = True
    source: str = ""
    goal: str = ""

    def to_bytes(self) -> bytes:
        """JSON, which says whose it is."""
        return json.dumps({"by": "text2video", **self._asdict()}).encode()


class Lock:
    """A file that is open and locked by this object alone, other threads of this process included."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self.descriptor = descriptor

    def holds(self) -> bool | None:
        """Return whether the lock is had now; None where the drive has no locks."""
        try:
            _lock(self.descriptor)
        except OSError as error:
            return False if error.errno in _HELD else None
        return True

    def is_in_place(self) -> bool:
        """Return whether the path still is this file, and a file."""
        here = os.fstat(self.descriptor)
        if sys.platform == "win32":
            # Nobody can remove or rename it there while it is open.
            return stat.S_ISREG(here.st_mode) and not self.path.is_symlink()
        try:
            return stat.S_ISREG(here.st_mode) and os.path.samestat(self.path.lstat(), here)
        except OSError:
            return False

    def write(self, note: Note) -> None:
        """Say in the file what it stands for."""
        os.write(self.descriptor, note.to_bytes())

    def read(self) -> Note | None:
        """Return what its owner wrote; None if that is nothing. Raises ValueError for a file that is not ours."""
        os.lseek(self.descriptor, 0, os.SEEK_SET)
        content = os.read(self.descriptor, _LONGEST_NOTE)
        if not content:
            return None
        with suppress(KeyError, TypeError):
            note = parse_json(content)
            if note["by"] == "text2video":
                return Note(bool(note["locked"]), str(note["source"]), str(note.get("goal", "")))
        raise ValueError(f"{self.path}: not a mark of this program")

    def close(self) -> None:
        """Let go."""
        with suppress(OSError):
            _unlock(self.descriptor)
        os.close(self.descriptor)

    def remove(self) -> None:
        """Remove the file and let go. Raises OSError."""
        # Windows removes no open file, and there nobody can have replaced one that another has opened meanwhile.
        # Elsewhere whoever lets go first could remove the mark of the next.
        if sys.platform == "win32":
            self.close()
            self.path.unlink()
            return
        try:
            self.path.unlink()
        finally:
            self.close()


def create(path: Path, note: Note | None = None) -> Lock:
    """Create a file that nobody has and lock it, where the drive has locks. Raises FileExistsError, OSError.

    note: what to write into it besides whether it could be locked.
    """
    ends = time.monotonic() + _PATIENCE
    while True:
        lock = Lock(path, os.open(path, _FLAGS | os.O_CREAT | os.O_EXCL, 0o666))
        try:
            # Before it is locked, another run may take it for a dead one's: it removes it, or lets go of it.
            while (held := lock.holds()) is False and lock.is_in_place() and time.monotonic() < ends:
                time.sleep(_PAUSE)
            if held is not False and lock.is_in_place():
                lock.write((note or Note())._replace(locked=bool(held)))
                return lock
        except BaseException:
            with suppress(OSError):
                lock.remove() if lock.is_in_place() else lock.close()
            raise
        lock.close()
        if time.monotonic() >= ends:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))


_WORKS_UNDER: ContextVar[Lock | None] = ContextVar("the lock under which this thread works", default=None)


@contextmanager
def working_under(lock: Lock) -> Iterator[None]:
    """Let children that are started meanwhile keep the lock."""
    token = _WORKS_UNDER.set(lock)
    try:
        yield
    finally:
        _WORKS_UNDER.reset(token)


def for_children() -> dict[str, Any]:
    """Arguments for subprocess.Popen, so that the lock is free only when the child has ended, too.

    Nothing on Windows, where locks are no child's; but there nobody can remove the file that it writes.
    """
    lock = _WORKS_UNDER.get()
    return {} if lock is None or sys.platform == "win32" else {"pass_fds": (lock.descriptor,)}


class Taken(NamedTuple):
    """What `take` has found. Without a lock and without a reason: its owner works, or there is nothing of ours.

    Args:
        lock: Of a file whose owner is gone, to be closed or removed.
        note: What its owner wrote.
        why: What keeps that from being known.
    """

    lock: Lock | None = None
    note: Note | None = None
    why: str = ""


def take(path: Path) -> Taken:
    """The lock of a file that an ended process left."""
    try:
        if not stat.S_ISREG(path.lstat().st_mode):
            return Taken()
        lock = Lock(path, _opened(path))
    except FileNotFoundError:
        return Taken()
    except OSError as error:
        return Taken(why=error.strerror or str(error))
    taken = _taken(lock)
    if taken.lock is None:
        lock.close()
    return taken


def _opened(path: Path) -> int:
    """A descriptor; another user's file can be locked without a right to write, on most drives."""
    try:
        return os.open(path, _FLAGS)
    except PermissionError:
        return os.open(path, _FLAGS & ~os.O_RDWR | os.O_RDONLY)


def _taken(lock: Lock) -> Taken:
    held = lock.holds()
    if held is False or not lock.is_in_place():
        return Taken()
    try:
        note = lock.read()
    except (ValueError, OSError):
        return Taken()
    if held is None or not _excludes(lock) or (note and not note.locked):
        return Taken(why="the drive has no locks that would tell whether somebody works there")
    return Taken(lock, note)


def _excludes(lock: Lock) -> bool:
    """Return whether a lock keeps a second one from being had: some network drives give it to everyone."""
    try:
        second = Lock(lock.path, _opened(lock.path))
    except OSError:
        return False
    try:
        return second.holds() is False
    finally:
        second.close()


if sys.platform == "win32":
    import msvcrt

    def _lock(descriptor: int) -> None:
        os.lseek(descriptor, 0, os.SEEK_SET)
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)

    def _unlock(descriptor: int) -> None:
        os.lseek(descriptor, 0, os.SEEK_SET)
        msvcrt.locking(descriptor, msvcrt.LK_UNLCK, 1)

else:
    import fcntl

    def _lock(descriptor: int) -> None:
        # Not fcntl's other locks: those a process has but once, and loses when it closes any copy of the file.
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def _unlock(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_UN)
