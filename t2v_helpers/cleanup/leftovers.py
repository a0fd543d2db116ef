"""Leftovers of killed processes: recognised in one folder, described, and removed on request."""

import os
import re
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from ...modelscope.config import CONFIGURATION, FilesConfig
from ...modelscope.errors import ModelError
from ...modelscope.escape import logger, visible
from ...modelscope.units import format_bytes
from ..generation.marks import MARK, is_mark, remove_run, unfinished
from ..locks import take
from ..models.staging import CONTENT, LOCK, is_only_copy, list_stagings, remove_staging, remove_tree
from ..video.formats import FORMATS

log = logger(__name__)
_DEPTH = 3
"""Levels of folders to search below the videos' folder: patterns make folders for dates, names and the like."""
_MOST = 20_000
"""Number of files and folders after which the search ends."""
_SUFFIXES = "|".join(re.escape(kind.suffix) for kind in FORMATS.values() if kind.suffix)
_UNFINISHED = re.compile(rf"(.+)({_SUFFIXES})\.partial\2")
_CONVERTED = {Path(name).stem + ".safetensors" for name in vars(FilesConfig()).values()} | {CONFIGURATION}
"""The names of all files that a conversion's folder may hold."""
_EMPTY = "the empty folder of a conversion or move"
_BY_HAND = "Delete it yourself if no running program needs it."
_AFTER_A_LOOK = "Take out what you need, then delete it yourself."


class Leftover(NamedTuple):
    """Something that a killed process left.

    size: in bytes; about: a description for people.
    remove: removes it, and returns False if it is in use or gone; None for what this program must not remove.
    advice: what to do instead.
    """

    path: Path
    size: int
    about: str
    remove: Callable[[], bool] | None = None
    advice: str = _BY_HAND

    @property
    def is_useless(self) -> bool:
        """True if this program may remove it. Anything else is to be kept, and its presence is not a fault."""
        return self.remove is not None

    def advise(self, removal: str) -> str:
        """Return advice for a person. removal: says how to let this program remove the leftover, if it may."""
        return removal if self.is_useless else self.advice

    def __str__(self) -> str:
        return visible(f"{self.path}: {self.about}, {format_bytes(self.size, 2)}.")


def measure(path: Path) -> int:
    """Return the size in bytes of a file, or of all files in a folder; links are not followed."""
    try:
        if path.is_symlink() or not path.is_dir():
            return path.lstat().st_size
        return sum(Path(here, name).lstat().st_size for here, _, names in os.walk(path) for name in names)
    except OSError:
        return 0


def remove_leftovers(leftovers: Sequence[Leftover]) -> list[str]:
    """Remove the leftovers that may be removed, and return a line about each.

    Raises:
        ModelError: Something could not be removed. The error has the lines about all leftovers.
    """
    messages, failed = [], False
    for one in leftovers:
        try:
            messages.append(_remove(one))
        except OSError as error:
            failed = True
            messages.append(f"{one.path} could not be removed ({error.strerror or error}). Delete it yourself.")
    if failed:
        raise ModelError(*messages)
    return messages


def _remove(one: Leftover) -> str:
    if one.remove is None:
        return f"{one} {one.advice}"
    if one.remove():
        return f"{one.path}: removed, {format_bytes(one.size, 2)}."
    return f"{one.path} was not removed: another program is using it now, or has already removed it."


def skip_unreadable(found: Iterator[Leftover]) -> Iterator[Leftover]:
    """Yield leftovers until one cannot be read, so that an unreadable folder does not hide those in others."""
    try:
        yield from found
    except OSError as error:
        log.info("Some folders could not be searched for leftovers: %s", error)


def find_ended_runs(videos: Path) -> Iterator[Leftover]:
    """Yield what killed runs left in a folder of videos and its subfolders."""
    for path in _list_files(videos):
        if is_mark(path.name):
            yield from skip_unreadable(_examine_run(path))
        # `is_file` comes last: a running process renames its file before it releases its mark.
        elif _is_markless(path) and path.is_file():
            about = "an unfinished video of an unknown run"
            yield Leftover(path, measure(path), about)


def _is_markless(path: Path) -> bool:
    match = _UNFINISHED.fullmatch(path.name)
    return match is not None and not os.path.lexists(path.with_name(match[1] + MARK))


def _examine_run(mark: Path) -> Iterator[Leftover]:
    taken = take(mark)
    if taken.lock:
        taken.lock.close()
    elif not taken.why:
        return
    files = unfinished(mark)
    named = f"{len(files)} unfinished file{'' if len(files) == 1 else 's'}"
    about = f"the mark of a run that has ended, with {named}" if taken.lock else f"the mark of a run, with {named}"
    size = sum(map(measure, (mark, *files)))
    yield Leftover(mark, size, about, partial(remove_run, mark) if taken.lock else None, advise_keeping(taken.why))


def advise_keeping(why: str) -> str:
    """Return the advice for a leftover that a process may still be working on."""
    return f"It stays ({why}). {_BY_HAND}"


def _list_files(folder: Path) -> Iterator[Path]:
    """Yield all files in a folder and its subfolders; if these are named by date, the newest come first."""
    looked_at = 0
    for here, folders, names in os.walk(folder):
        folders.sort(reverse=True)
        if len(Path(here).relative_to(folder).parts) >= _DEPTH:
            folders.clear()
        for name in sorted(names):
            yield Path(here, name)
        looked_at += len(names) + len(folders)
        if looked_at > _MOST:
            return


def find_ended_copies(parent: Path) -> Iterator[Leftover]:
    """Yield what killed conversions and moves left in a folder."""
    for path in list_stagings(parent):
        if path.is_symlink():
            yield Leftover(path, 0, "a link that is named like an unfinished copy", partial(_unlink, path))
        elif not os.path.lexists(path / LOCK):
            yield from skip_unreadable(_examine_unlocked(path))
        else:
            yield from skip_unreadable(_examine_copy(path))


def _examine_copy(path: Path) -> Iterator[Leftover]:
    taken = take(path / LOCK)
    if taken.lock:
        taken.lock.close()
    elif not taken.why:
        return
    source = taken.note.source if taken.note else ""
    about, size = f"an unfinished copy of {source}" if source else "an unfinished conversion", measure(path)
    if taken.lock is None:
        yield Leftover(path, size, about, advice=advise_keeping(taken.why))
    elif not os.path.lexists(path / CONTENT):
        yield Leftover(path, size, _EMPTY, partial(remove_staging, path))
    elif is_only_copy(path / CONTENT, taken.note):
        advice = f"It stays: no original was found, so this may be the only copy. {_AFTER_A_LOOK}"
        yield Leftover(path, size, about, advice=advice)
    else:
        yield Leftover(path, size, about, partial(remove_staging, path))


def _examine_unlocked(path: Path) -> Iterator[Leftover]:
    """Examine a folder that an earlier version left. It locked nothing and moved files: this may be the only copy."""
    if not path.is_dir() or not _CONVERTED.issuperset(os.listdir(path)):
        advice = f"It stays: it may be the only copy of a model. {_AFTER_A_LOOK}"
        yield Leftover(path, measure(path), "left by an earlier version that moved something", advice=advice)
    elif os.listdir(path):
        about = "an unfinished conversion by an earlier version, unless that version is still running"
        yield Leftover(path, measure(path), about, partial(_remove_unlocked, path))
    else:
        yield Leftover(path, 0, _EMPTY, partial(remove_staging, path))


def _remove_unlocked(path: Path) -> bool:
    if os.path.lexists(path / LOCK) or not os.path.lexists(path):
        return False
    remove_tree(path)
    return True


def _unlink(path: Path) -> bool:
    path.unlink(missing_ok=True)
    return True
