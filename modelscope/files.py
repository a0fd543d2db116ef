"""Opens files without blocking, and reads from them with checks for missing bytes."""

import errno
import hashlib
import io
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hashlib import _Hash

_NO_WAITING = getattr(os, "O_NONBLOCK", 0)
_PIECE = 1 << 20
"""Number of bytes that are hashed at once."""


def open_file(path: Path) -> io.BufferedReader:
    """Open a file for reading. Raises OSError, also for a pipe or a device, which may have no end."""
    file = open(path, "rb", opener=lambda name, flags: os.open(name, flags | _NO_WAITING))  # noqa: SIM115
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OSError(errno.EINVAL, "it is not a regular file", str(path))
    return file


def size_of(path: Path) -> int:
    """Return a file's size in bytes, or 0 if it cannot be determined."""
    try:
        return path.stat().st_size
    except OSError:
        return 0


def read_at(file: io.BufferedReader, offset: int, size: int) -> bytes:
    """Read `size` bytes at a position. Raises EOFError if there are fewer, OSError if the disk fails."""
    file.seek(offset)
    data = file.read(size)
    if len(data) != size:
        raise EOFError("it ends too soon")
    return data


def read_array(file: io.BufferedReader, offset: int, size: int) -> bytearray:
    """Read `size` bytes at a position into a writable array. Raises as `read_at` does.

    The caller must have checked that the file is large enough.
    """
    file.seek(offset)
    data = bytearray(size)
    if file.readinto(data) != size:
        raise EOFError("it ends too soon")
    return data


def hash_file(path: Path, begun: "_Hash | None" = None, on_piece: Callable[[], None] = lambda: None) -> str:
    """Return a file's hash as hexadecimal digits.

    Args:
        path: A file of any size.
        begun: A hash to continue; a new SHA-256 if not given.
        on_piece: Called after each megabyte; an exception that it raises ends the reading.

    Raises:
        OSError: The file cannot be read.
    """
    hashed = begun or hashlib.sha256()
    with open_file(path) as file:
        while piece := file.read(_PIECE):
            hashed.update(piece)
            on_piece()
    return hashed.hexdigest()
