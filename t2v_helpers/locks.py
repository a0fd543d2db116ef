"""Files that are locked while their owner works. The system frees the lock when the process ends, however it ends."""

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
"""Errors that mean that another has the lock; all other errors mean that the drive has no locks."""
_FLAGS = os.O_RDWR | getattr(os, "O_BINARY", 0) | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
_LONGEST_NOTE = 1 << 16
_PATIENCE, _PAUSE = 5.0, 0.002
"""Seconds to wait while somebody checks whether the lock is free, and seconds between attempts."""


class Note(NamedTuple):
    """A note that the owner of a lock writes into its file.

    locked: whether the file could be locked; source, goal: what is being copied, and to where; empty without a copy.
    """

    locked: bool = True
    source: str = ""
    goal: str = ""

    def to_bytes(self) -> bytes:
        """Return the note as JSON that names this program."""
        return json.dumps({"by": "text2video", **self._asdict()}).encode()


class Lock:
    """A file that is open, and that only this object can lock, even among the threads of this process."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self.descriptor = descriptor

    def holds(self) -> bool | None:
        """Try to lock the file. Return whether that worked, or None if the drive has no locks."""
        try:
            _lock(self.descriptor)
        except OSError as error:
            return False if error.errno in _HELD else None
        return True

    def is_in_place(self) -> bool:
        """Return whether the path still leads to this file, and the file is a regular one."""
        here = os.fstat(self.descriptor)
        if sys.platform == "win32":
            # On Windows nobody can remove or rename an open file.
            return stat.S_ISREG(here.st_mode) and not self.path.is_symlink()
        try:
            return stat.S_ISREG(here.st_mode) and os.path.samestat(self.path.lstat(), here)
        except OSError:
            return False

    def write(self, note: Note) -> None:
        """Write a note into the file."""
        os.write(self.descriptor, note.to_bytes())

    def read(self) -> Note | None:
        """Return the owner's note, or None if the file is empty. Raises ValueError for a file that is not ours."""
        os.lseek(self.descriptor, 0, os.SEEK_SET)
        content = os.read(self.descriptor, _LONGEST_NOTE)
        if not content:
            return None
        with suppress(KeyError, TypeError):
            note = parse_json(content)
            if note["by"] == "text2video":
                return Note(bool(note["locked"]), str(note["source"]), str(note.get("goal", "")))
        raise ValueError(f"{self.path}: not written by this program")

    def close(self) -> None:
        """Release the lock and close the file."""
        with suppress(OSError):
            _unlock(self.descriptor)
        os.close(self.descriptor)

    def remove(self) -> None:
        """Remove the file and release the lock. Raises OSError."""
        # Windows cannot remove an open file; if another has opened it meanwhile, nobody can have replaced it. On other
        # systems, a file that is released before it is removed may by then be somebody else's.
        if sys.platform == "win32":
            self.close()
            self.path.unlink()
            return
        try:
            self.path.unlink()
        finally:
            self.close()


def create(path: Path, note: Note | None = None) -> Lock:
    """Create a file that does not exist yet, and lock it if the drive has locks. Raises FileExistsError, OSError.

    note: what to write into the file; `locked` is filled in.
    """
    ends = time.monotonic() + _PATIENCE
    while True:
        lock = Lock(path, os.open(path, _FLAGS | os.O_CREAT | os.O_EXCL, 0o666))
        try:
            # Until the file is locked, another run may take it for a dead run's, lock it, and remove or release it.
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
    """Let child processes that are started within the context share the lock."""
    token = _WORKS_UNDER.set(lock)
    try:
        yield
    finally:
        _WORKS_UNDER.reset(token)


def for_children() -> dict[str, Any]:
    """Return arguments for subprocess.Popen with which the lock is free only when the child has ended, too.

    There are none on Windows, where a child cannot share a lock; but there nobody can remove the file that it writes.
    """
    lock = _WORKS_UNDER.get()
    return {} if lock is None or sys.platform == "win32" else {"pass_fds": (lock.descriptor,)}


class Taken(NamedTuple):
    """The result of `take`. Without `lock` and `why`, the owner is still working, or the file is not ours.

    Args:
        lock: The lock of a file whose owner is gone, to be closed or removed.
        note: The owner's note.
        why: The reason why it cannot be known whether the owner is gone.
    """

    lock: Lock | None = None
    note: Note | None = None
    why: str = ""


def take(path: Path) -> Taken:
    """Take the lock of a file if the process that created it has ended."""
    try:
        if not stat.S_ISREG(path.lstat().st_mode):
            return Taken()
        lock = Lock(path, _open(path))
    except FileNotFoundError:
        return Taken()
    except OSError as error:
        return Taken(why=error.strerror or str(error))
    taken = _take_if_ended(lock)
    if taken.lock is None:
        lock.close()
    return taken


def _open(path: Path) -> int:
    """Open a file and return its descriptor. On most drives a file of another user can be locked read-only."""
    try:
        return os.open(path, _FLAGS)
    except PermissionError:
        return os.open(path, _FLAGS & ~os.O_RDWR | os.O_RDONLY)


def _take_if_ended(lock: Lock) -> Taken:
    held = lock.holds()
    if held is False or not lock.is_in_place():
        return Taken()
    try:
        note = lock.read()
    except (ValueError, OSError):
        return Taken()
    if held is None or not _excludes(lock) or (note and not note.locked):
        return Taken(why="this drive has no locks, so a program may still be using it")
    return Taken(lock, note)


def _excludes(lock: Lock) -> bool:
    """Return whether a lock excludes a second one: some network drives grant it to everyone."""
    try:
        second = Lock(lock.path, _open(lock.path))
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
        # Not fcntl.lockf: its locks belong to the whole process, which loses them when it closes any copy of the file.
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def _unlock(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_UN)
