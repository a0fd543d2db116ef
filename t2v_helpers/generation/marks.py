"""Marks, which reserve a name for a run while it writes its files, and cleanup after killed runs."""

import re
from collections.abc import Iterable
from pathlib import Path

from ...modelscope.escape import logger
from ..locks import take
from ..video.formats import FORMATS, Format

log = logger(__name__)
MARK = ".reserved"
"""Suffix of a mark's name; before it is the name that the run's files get."""
_FRAME = re.compile(r"\d{5,}\.png")


def remove_dead_runs(folder: Path, names: Iterable[str]) -> bool:
    """Remove what killed runs left in a folder, as far as possible. Return whether anything was removed.

    names: the files in the folder. Raises nothing.
    """
    removed = False
    for mark in (folder / name for name in names if is_mark(name)):
        try:
            removed |= remove_run(mark)
        except OSError as error:
            log.info("%s: the leftovers of an ended run could not be removed (%s)", mark, error.strerror or error)
    return removed


def is_mark(name: str) -> bool:
    """Return whether a file with this name is a mark."""
    return name.endswith(MARK) and name != MARK


def remove_run(mark: Path) -> bool:
    """Remove a run's mark and its unfinished files if the run has ended. Return whether it has.

    Raises:
        OSError: A file could not be removed. The mark is kept.
    """
    lock = take(mark).lock
    if lock is None:
        return False
    try:
        # The mark goes last: until then, no other run gets the name.
        for path in unfinished(mark):
            _remove(path)
    except OSError:
        lock.close()
        raise
    lock.remove()
    log.info("%s: the leftovers of an ended run were removed", mark.with_suffix(""))
    return True


def unfinished(mark: Path) -> list[Path]:
    """Return the files that a mark's run has begun: by exact names, so that no others are included."""
    stem = mark.name.removesuffix(MARK)
    kinds = {kind.partial(mark.with_name(stem + kind.suffix)): kind for kind in FORMATS.values()}
    return [path for path, kind in kinds.items() if path.is_symlink() or _has_kind(path, kind)]


def _has_kind(path: Path, kind: Format) -> bool:
    return path.is_dir() if kind.is_folder else path.is_file()


def _remove(path: Path) -> None:
    """Remove a file, or a folder that holds nothing but frames. Links are removed, not followed. Raises OSError."""
    if path.is_symlink() or not path.is_dir():
        path.unlink()
        return
    for inside in path.iterdir():
        if _FRAME.fullmatch(inside.name):
            inside.unlink()
    path.rmdir()
