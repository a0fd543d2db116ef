"""The only place that decides which files somebody may name to be read."""

import os
import re
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from ..modelscope.errors import RequestError
from .disk import split_folders

_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:")
"""Pattern for the start of an address such as http://... or data:...; a single letter would be a drive's."""
_SHOWN = 300
"""Number of characters of a name that an error shows."""


class Reader(NamedTuple):
    """Rights of somebody who names a file.

    everything: whether they may read all that this program can; folders: otherwise, files below these folders.
    """

    everything: bool = False
    folders: tuple[Path, ...] = ()


COMMAND_LINE = Reader(everything=True)
"""The rights on the command line: a person who starts the program could read the file without it, too."""


def find_readable(name: str, reader: Reader) -> Path:
    """Return the file with a name, links resolved. Raises RequestError if it does not exist or is not allowed."""
    shown = ascii(name[:_SHOWN])
    if is_url(name):
        raise RequestError(f"{shown} looks like an address, but only files can be read. Give the path of a file.")
    # The name is checked first: merely looking at a file on another computer tells that computer who asks.
    if not (reader.everything or _is_below(os.path.abspath(name), reader.folders)):
        raise _not_allowed(shown)
    try:
        real = os.path.realpath(name)
        mode = Path(real).stat().st_mode
    except (OSError, ValueError):
        mode = 0
    if not stat.S_ISREG(mode):
        raise RequestError(f"There is no file {shown}. Check the path.")
    if not (reader.everything or _is_below(real, map(os.path.realpath, reader.folders))):
        raise _not_allowed(shown)
    return Path(real)


def find_typed(text: object, reader: Reader) -> Path:
    """Return the file whose path a person has typed or pasted, maybe in quotes. Raises RequestError, as above."""
    return find_readable(str(text).strip().strip('"'), reader)


def is_url(name: str) -> bool:
    """Return whether a name is an address such as http://..., not a path."""
    return _ADDRESS.match(name.strip()) is not None


def readable_folders(text: str) -> tuple[Path, ...]:
    """Return the folders in the setting's text; relative ones are left out."""
    return tuple(folder for folder in split_folders(text) if folder.is_absolute())


def _is_below(path: str, folders: "Iterable[str | Path]") -> bool:
    return any(Path(path).is_relative_to(folder) for folder in folders)


def _not_allowed(shown: str) -> RequestError:
    return RequestError(
        f"{shown} is not in a folder that you may read from here. Upload the file, or allow its folder: in a WebUI "
        "with Settings > Text2Video > Folders from which visitors may open files, on the standalone page with "
        "--readable-dir."
    )
