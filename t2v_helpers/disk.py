"""Parses the names of folders that people type, and finds the free space on disks."""

import shutil
from pathlib import Path

from ..modelscope.errors import RequestError
from ..modelscope.escape import logger
from ..modelscope.units import format_bytes

log = logger(__name__)


def expand_home(text: str) -> Path:
    """Return a folder or file, with a leading ~ or ~user replaced by the user's home.

    Raises:
        RequestError: There is no such user, or the home is not known.
    """
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        message = f"{text!a} refers to the home of an unknown user. Write the full path instead."
        raise RequestError(message) from error


def split_folders(text: str) -> tuple[Path, ...]:
    """Return the folders in a setting's text, separated by semicolons; unknown users' homes are logged and left out."""
    folders = []
    for name in filter(None, map(str.strip, text.split(";"))):
        try:
            folders.append(expand_home(name))
        except RequestError as error:
            log.warning("A folder in the settings cannot be used. %s", error)
    return tuple(folders)


def free_space(folder: Path) -> int | None:
    """Return the free bytes on a folder's disk, or None if the system does not say."""
    try:
        disk = shutil.disk_usage(folder)
    except OSError:
        return None
    # A folder without files on a disk, such as /proc, reports no space at all.
    return disk.free if disk.total > 0 else None


def find_shortage(folder: Path, size: int) -> str:
    """Return a message if `size` bytes do not fit into a folder, or an empty string if they do."""
    free = free_space(folder)
    if free is None or size <= free:
        return ""
    return f"needs {format_bytes(size, 2)}, but the disk has only {format_bytes(free, 2)} free. Free some space."
