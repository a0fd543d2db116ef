"""Finds weights that people have put into wrong folders, and moves them on request."""

import errno
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from ...modelscope.checkpoints.find_parts import WEIGHTS
from ...modelscope.config import CONFIGURATION, FilesConfig
from ...modelscope.errors import ModelError
from ...modelscope.json_files import read_json
from .folders import PART_FOLDERS, base_folder, more_folder
from .staging import is_staging, open_staging, remove_dead_copies, remove_tree

_STEMS = {
    Path(name).stem for name in (FilesConfig().ckpt_clip, FilesConfig().ckpt_unet, FilesConfig().ckpt_autoencoder)
}
_DEPTH = 3
"""Number of levels of folders to search: some people link whole disks there."""
_MOST = 20_000
"""Maximum number of entries to look at in a folder and below it."""


class Misplaced(NamedTuple):
    """A file, or a model's folder, and the path at which it belongs."""

    path: Path
    goal: Path


def downloads_folder() -> Path | None:
    """Return the folder into which browsers put files, or None for a user without a home."""
    try:
        return Path.home() / "Downloads"
    except RuntimeError:
        return None


def find_misplaced(models: Path, downloads: Path | None = None) -> list[Misplaced]:
    """Return the files of ModelScope models that are in folders in which no program looks for them.

    Of several files that belong in the same place, the one without a browser's number comes first.

    Args:
        models: The WebUI's folder of models.
        downloads: The browser's folder for downloads, if it is to be searched, too.
    """
    base = base_folder(models)
    places = {models / name: _DEPTH for name in ("Stable-diffusion", "ModelScope", "VAE", "Lora")}
    places |= {models: 0, more_folder(models): 0} | ({downloads: 1} if downloads else {})
    # An archive that is unpacked into a folder often creates a subfolder with its own name.
    places |= {base / name: 0 for name in _list_names(base) if name not in PART_FOLDERS and (base / name).is_dir()}
    right = {base, more_folder(models)}
    found = [path for place, depth in places.items() for path in _find_files(place, depth, right) if _is_ours(path)]
    return [
        Misplaced(path, _find_goal(path, models))
        for path in sorted(found, key=lambda path: _drop_number(path) != path.name)
    ]


def _find_files(folder: Path, depth: int, right: set[Path]) -> Iterator[Path]:
    """Yield files and diffusers' folders in a folder and its subfolders, but not those in the right places.

    depth: levels of subfolders to search; right: folders in which models belong.
    """
    budget = _MOST
    waiting = [(folder, depth)]
    while waiting and budget > 0:
        here, deeper = waiting.pop(0)
        for name in _list_names(here):
            budget -= 1
            path = here / name
            if not right & {here, path} and _is_diffusers(path):
                yield path
            elif path.is_dir():
                if deeper and path not in right and not path.is_symlink():
                    waiting.append((path, deeper - 1))
            else:
                yield path


def _list_names(folder: Path) -> Sequence[str]:
    try:
        # Names that are not printable cannot be shown on a page. Files that are being moved are left out, too.
        return sorted(name for name in os.listdir(folder) if name.isprintable() and not is_staging(name))
    except OSError:
        return ()


def _is_diffusers(path: Path) -> bool:
    """Return whether a folder is a ModelScope model in diffusers' layout."""
    try:
        document = read_json(path / "unet" / "config.json")
        return bool(document["_class_name"] == "UNet3DConditionModel")
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _is_ours(path: Path) -> bool:
    if path.is_dir():
        return True
    if path.name == CONFIGURATION:
        return _is_our_configuration(path)
    return Path(_drop_number(path)).stem in _STEMS and path.suffix in WEIGHTS and _holds_something(path)


def _holds_something(path: Path) -> bool:
    """Return whether a file has content: Firefox puts an empty file next to a download, and a link may be broken."""
    try:
        return path.stat().st_size > 0
    except OSError:
        return False


def _drop_number(path: Path) -> str:
    """Return a file's name without the number that a browser gives to a second download."""
    return re.sub(r" ?\(\d+\)$", "", path.stem) + path.suffix


def _is_our_configuration(path: Path) -> bool:
    try:
        document = read_json(path)
        return bool(document["model"]["type"] == "latent-text-to-video-synthesis")
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _find_goal(path: Path, models: Path) -> Path:
    """Return where a file belongs: in the base model's folder, or in one with the name of its present folder."""
    base = base_folder(models)
    if path.is_dir():
        return more_folder(models) / path.name
    above = path.parent.name
    usual = {
        "t2v",
        "ModelScope",
        "Stable-diffusion",
        "VAE",
        "Lora",
        models.name,
        more_folder(models).name,
        "Downloads",
    }
    return (base if above in usual or path.parent.parent == base else more_folder(models) / above) / _drop_number(path)


def move(files: Sequence[Misplaced]) -> list[str]:
    """Move files to where they belong, and return a line about each. Nothing is overwritten.

    Raises:
        ModelError: Some files could not be moved. The error has the lines about all of them.
    """
    messages, failed = [], False
    for path, goal in files:
        try:
            messages.append(_move(path, goal))
        except OSError as error:
            if goal.exists() and not os.path.lexists(path):
                messages.append(f"{path} has already been moved to {goal} by another program.")
                continue
            failed = True
            messages.append(
                f"{path} could not be moved to {goal} ({error.strerror or error}). Free space, or move it yourself."
            )
    if failed:
        raise ModelError(*messages)
    return messages


def _move(path: Path, goal: Path) -> str:
    """Move a file or folder, and return what was done. A move to another disk makes a hidden copy. Raises OSError."""
    if goal.exists():
        return f"{path} was not moved: {goal} already exists."
    if path.is_symlink():
        return f"{path} was not moved: it is a link to {path.resolve()}. Put a link to that into {goal.parent} instead."
    goal.parent.mkdir(parents=True, exist_ok=True)
    # This comes before the original is moved: without an original, a dead copy would stay.
    remove_dead_copies(goal.parent)
    if not _try_rename(path, goal):
        with open_staging(goal, path) as copy:
            _copy(path, copy)
            if os.path.lexists(goal):
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(goal))
            copy.rename(goal)
        # The original is removed last, so that there is a complete file under a proper name at every moment.
        try:
            remove_tree(path)
        except OSError as error:
            if os.path.lexists(path):
                reason = error.strerror or error
                return f"{path} was copied to {goal}, but could not be deleted ({reason}). Delete it yourself."
    return f"{path} was moved to {goal}."


def _try_rename(path: Path, goal: Path) -> bool:
    """Rename a file or folder. Return whether that worked: between two disks it does not. Raises OSError."""
    try:
        path.rename(goal)
    except OSError as error:
        if path.stat().st_dev == goal.parent.stat().st_dev and error.errno != errno.EXDEV:
            raise
        return False
    return True


def _copy(path: Path, copy: Path) -> None:
    """Copy a file or folder with its dates. Raises OSError."""
    if path.is_dir():
        shutil.copytree(path, copy, symlinks=True)
        return
    before = path.stat()
    shutil.copy2(path, copy)
    after = path.stat()
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
        raise OSError("it changed while it was being copied")
