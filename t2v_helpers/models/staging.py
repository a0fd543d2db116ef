"""Hidden folders beside a goal, in which it is made until it is whole, and what killed processes leave of them."""

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

from ...modelscope.escape import logger
from ..locks import Lock, Note, create, take

log = logger(__name__)
LOCK, CONTENT = "lock", "content"
_NAME = re.compile(r"\.[0-9a-f]{32}\.part")
_ATTEMPTS = 10


@contextmanager
def staged(goal: Path, source: Path | None = None) -> Iterator[Path]:
    """A path that the block fills and then renames to the goal; what it did not rename is removed. Raises OSError.

    Whatever killed processes left beside the goal is removed first.

    source: what is being copied. While it is gone, nothing of the copy is removed: it may be the only one.
    """
    goal.parent.mkdir(parents=True, exist_ok=True)
    remove_ended(goal.parent)
    lock = _begin(goal.parent, source)
    note = Note(source=str(source or ""))
    try:
        yield lock.path.with_name(CONTENT)
    finally:
        with suppress(OSError):
            _end(lock, note)


def _begin(parent: Path, source: Path | None) -> Lock:
    """The lock of a new folder."""
    for _ in range(_ATTEMPTS):
        folder = parent / f".{uuid4().hex}.part"
        folder.mkdir()
        # Another process may have taken the empty folder for a dead one's, and removed it.
        with suppress(FileNotFoundError):
            return create(folder / LOCK, source.absolute() if source else None)
    raise OSError(f"{parent}: folders vanish there as soon as they are made")


def _end(lock: Lock, note: Note | None) -> None:
    """Remove a folder with its content, the lock last. Raises OSError."""
    try:
        content = lock.path.with_name(CONTENT)
        if os.path.lexists(content):
            if is_only_copy(note):
                raise OSError(f"{content} may be the only copy")
            remove_tree(content)
    except BaseException:
        lock.close()
        raise
    lock.remove()
    lock.path.parent.rmdir()


def is_only_copy(note: Note | None) -> bool:
    """Whether the content may be all that there is of something: what it was copied from is gone, or unknown."""
    return note is None or bool(note.source and not os.path.lexists(note.source))


def remove_tree(path: Path) -> None:
    """Remove a file, or a folder with all in it. Links are removed, not followed. Raises OSError."""
    if path.is_symlink() or not path.is_dir():
        path.unlink()
    else:
        shutil.rmtree(path)


def stagings(parent: Path) -> list[Path]:
    """What has the name of such a folder."""
    try:
        return sorted(parent / name for name in os.listdir(parent) if is_staging(name))
    except OSError:
        return []


def is_staging(name: str) -> bool:
    """Whether only this program gives such names."""
    return bool(_NAME.fullmatch(name))


def remove_ended(parent: Path) -> None:
    """Remove what killed processes left in a folder, where that can be known and done; nothing is raised."""
    for folder in stagings(parent):
        try:
            if remove_staging(folder):
                log.info("%s: what an ended process had left was removed", folder)
        except OSError as error:
            log.info("%s: what an ended process left could not be removed (%s)", folder, error.strerror or error)


def remove_staging(folder: Path) -> bool:
    """Remove one, if its process has ended and its content is not the only copy of something. Raises OSError."""
    if folder.is_symlink() or not folder.is_dir():
        return False
    taken = take(folder / LOCK)
    if taken.lock:
        _end(taken.lock, taken.note)
        return True
    if not os.listdir(folder):
        # Its process was killed before it could lock anything, or is just about to, which then makes another.
        folder.rmdir()
        return True
    return False
