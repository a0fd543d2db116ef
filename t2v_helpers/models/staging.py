"""Hidden folders that hold a file or folder until it is complete, and cleanup of those that killed processes left."""

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
def open_staging(goal: Path, source: Path | None = None) -> Iterator[Path]:
    """Yield a path that the block fills and then renames to the goal. If it is not renamed, it is removed.

    What killed processes left in the goal's folder is removed first.

    Args:
        goal: The file or folder to create.
        source: What is being copied, if anything. If the source is gone and the goal is not the same, the copy is not
            removed: it may be the only one.

    Raises:
        OSError: The folder cannot be created.
    """
    goal.parent.mkdir(parents=True, exist_ok=True)
    remove_dead_copies(goal.parent)
    note = Note(source=str(source.absolute()), goal=str(goal.absolute())) if source else Note()
    lock = _begin(goal.parent, note)
    try:
        yield lock.path.with_name(CONTENT)
    finally:
        with suppress(OSError):
            _end(lock, note)


def _begin(parent: Path, note: Note) -> Lock:
    """Create a hidden folder and return its lock. Raises OSError."""
    for _ in range(_ATTEMPTS):
        folder = parent / f".{uuid4().hex}.part"
        folder.mkdir()
        # Another process may have taken the empty folder for a dead process's, and removed it.
        with suppress(FileNotFoundError):
            return create(folder / LOCK, note)
    raise OSError(f"{parent}: new folders disappear there immediately")


def _end(lock: Lock, note: Note | None) -> None:
    """Remove a staging folder with its content, the lock last. Raises OSError."""
    try:
        content = lock.path.with_name(CONTENT)
        if os.path.lexists(content):
            if is_only_copy(content, note):
                raise OSError(f"{content} may be the only copy")
            remove_tree(content)
    except BaseException:
        lock.close()
        raise
    lock.remove()
    lock.path.parent.rmdir()


def is_only_copy(content: Path, note: Note | None) -> bool:
    """Return whether the content may be the only copy of something.

    It is not if its source is still there, or if the goal has all its files in the same sizes: then another process has
    moved the same thing meanwhile.
    """
    if note is None:
        return True
    if not note.source or os.path.lexists(note.source):
        return False
    try:
        return not (note.goal and _file_sizes(content).items() <= _file_sizes(Path(note.goal)).items())
    except OSError:
        return True


def _file_sizes(path: Path) -> dict[str, int]:
    """Return the sizes in bytes of all files in a folder, by their paths in it, or of a single file. Raises OSError."""

    def fail(error: OSError) -> None:
        raise error

    if not path.is_dir():
        return {"": path.lstat().st_size}
    files = (Path(here, name) for here, _, names in os.walk(path, onerror=fail) for name in names)
    return {file.relative_to(path).as_posix(): file.lstat().st_size for file in files}


def remove_tree(path: Path) -> None:
    """Remove a file, or a folder with its content. Links are removed, not followed. Raises OSError."""
    if path.is_symlink() or not path.is_dir():
        path.unlink()
    else:
        shutil.rmtree(path)


def list_stagings(parent: Path) -> list[Path]:
    """Return everything in a folder that has the name of a staging folder, whoever created it."""
    try:
        return sorted(parent / name for name in os.listdir(parent) if is_staging(name))
    except OSError:
        return []


def is_staging(name: str) -> bool:
    """Return whether a name is that of a staging folder."""
    return bool(_NAME.fullmatch(name))


def remove_dead_copies(parent: Path) -> None:
    """Remove the staging folders that killed processes left in a folder, as far as possible. Raises nothing."""
    for folder in list_stagings(parent):
        try:
            if remove_staging(folder):
                log.info("%s: the leftovers of an ended process were removed", folder)
        except OSError as error:
            log.info("%s: the leftovers of an ended process could not be removed (%s)", folder, error.strerror or error)


def remove_staging(folder: Path) -> bool:
    """Remove a staging folder whose process has ended, unless its content may be the only copy of something.

    Return whether it was removed. Raises OSError.
    """
    if folder.is_symlink() or not folder.is_dir():
        return False
    taken = take(folder / LOCK)
    if taken.lock:
        _end(taken.lock, taken.note)
        return True
    if not os.listdir(folder):
        # Its process was killed before it could create the lock, or is about to; then it creates another folder.
        folder.rmdir()
        return True
    return False
