"""Files as they are on the disk: opened without waiting, read without being surprised."""

import errno
import io
import os
import stat
from pathlib import Path

_NO_WAITING = getattr(os, "O_NONBLOCK", 0)


def open_file(path: Path) -> io.BufferedReader:
    """Open a file to read it. Raises OSError, also for a pipe or a device, which may have no end."""
    file = open(path, "rb", opener=lambda name, flags: os.open(name, flags | _NO_WAITING))  # noqa: SIM115
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OSError(errno.EINVAL, "it is no regular file", str(path))
    return file


def read_at(file: io.BufferedReader, offset: int, size: int) -> bytes:
    """Read so many bytes at a place. Raises EOFError where there are fewer, OSError where the disk fails."""
    file.seek(offset)
    data = file.read(size)
    if len(data) != size:
        raise EOFError("it is shorter than it says")
    return data


def read_array(file: io.BufferedReader, offset: int, size: int) -> bytearray:
    """Read the same to be kept and changed. The size must be one that the file has been seen to have."""
    file.seek(offset)
    data = bytearray(size)
    if file.readinto(data) != size:
        raise EOFError("it is shorter than it says")
    return data
