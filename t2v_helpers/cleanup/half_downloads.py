"""Finds half downloads: those that a download can continue, and those that nobody will ask for again."""

import os
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from ..locks import Lock, create, take
from ..models.download import LOCK, STAGING
from ..models.known import KNOWN, KnownModel
from .leftovers import Leftover, advise_keeping, measure

_PART = re.compile(r"(.+)\.([0-9a-f]{12})\.part")


def find_half_downloads(folder: Path, models: Path, loras: Path) -> Iterator[Leftover]:
    """Yield what interrupted downloads left in a model's folder, unless a download is under way. Raises OSError.

    Args:
        folder: The model's folder.
        models: The folder of all models. A half download that a known model's download would continue is kept.
        loras: The folder of all LoRAs.
    """
    staging = folder / STAGING
    if staging.is_symlink() or not staging.is_dir():
        return
    if os.path.lexists(staging / LOCK):
        taken = take(staging / LOCK)
        if taken.lock:
            taken.lock.close()
        elif taken.why:
            yield Leftover(
                staging,
                measure(staging),
                "a download that was interrupted or is still running",
                advice=advise_keeping(taken.why),
            )
            return
        else:
            return
    parts = _list_parts(staging)
    for path in parts:
        yield _describe_half(path, _find_resuming(path, models, loras))
    if not parts and set(os.listdir(staging)) <= {LOCK}:
        yield Leftover(staging, 0, "the empty folder of an earlier download", partial(_remove, staging, None))


def _list_parts(staging: Path) -> list[Path]:
    return sorted(path for path in staging.iterdir() if _PART.fullmatch(path.name) and not path.is_dir())


def _describe_half(path: Path, model: KnownModel | None) -> Leftover:
    if model is None:
        about = "an unfinished download that no known model would resume"
        return Leftover(path, measure(path), about, partial(_remove, path.parent, path))
    advice = (
        f"It stays: the next download of {model.key} (`python run.py download {model.key}`, or Download under Models) "
        "resumes it, or removes it if the file is already there."
    )
    return Leftover(path, measure(path), f"an unfinished download of {model.label}", advice=advice)


def _find_resuming(part: Path, models: Path, loras: Path) -> KnownModel | None:
    """Return the known model whose download into this folder would continue a half download, if there is one."""
    match = _PART.fullmatch(part.name)
    assert match
    name, digits = match.groups()
    return next(
        (
            model
            for model in KNOWN
            if model.goal(models, loras) == part.parent.parent
            and any(file.name == name and digits.startswith(file.sha256[: len(digits)]) for file in model.files)
        ),
        None,
    )


def _remove(staging: Path, part: Path | None) -> bool:
    """Remove a half download, and the folder after the last one; not while a download is under way. Raises OSError.

    Return whether it was removed.
    """
    is_new = not os.path.lexists(staging / LOCK)
    lock = _lock(staging / LOCK)
    if lock is None:
        return False
    is_last = False
    try:
        if part:
            part.unlink(missing_ok=True)
        is_last = set(os.listdir(staging)) == {LOCK}
    finally:
        # A lock file that a download left is used by the next download, too.
        lock.remove() if is_new or is_last else lock.close()
    if is_last:
        staging.rmdir()
    return True


def _lock(path: Path) -> Lock | None:
    """Return the lock of a download's folder, or None while a download is under way. Raises OSError."""
    try:
        return take(path).lock if os.path.lexists(path) else create(path)
    except FileExistsError:
        return None
