"""Tells whether a file is on another computer's drive, where somebody may shorten it while it is mapped."""

import os
import re
import sys
from pathlib import Path

_REMOTE = ("nfs", "cifs", "smb", "9p", "afs", "ceph", "glusterfs", "fuse.")
"""The starts of Linux' names for network file systems. WSL reaches the drives of Windows by 9p, too."""
_MOUNTS = Path("/proc/self/mounts")
_DRIVE_REMOTE = 4


def is_remote(path: Path) -> bool:
    """Return whether a file is known to be on a network drive. macOS is not asked: it has no simple answer."""
    real = os.path.realpath(path)
    if sys.platform == "win32":
        import ctypes

        drive = os.path.splitdrive(real)[0]
        return drive.startswith("\\\\") or ctypes.windll.kernel32.GetDriveTypeW(drive + "\\") == _DRIVE_REMOTE
    try:
        return _is_mounted_remotely(real, _MOUNTS.read_text(encoding="utf-8", errors="surrogateescape"))
    except OSError:
        return False


def _is_mounted_remotely(real: str, mounts: str) -> bool:
    """Return whether a resolved path is on a network drive.

    mounts: lines of device, folder, kind and options, as Linux lists them; the last that fits is the one on top.
    """
    longest, remote = 0, False
    for line in mounts.splitlines():
        _, folder, kind, options, *_ = [*line.split(" "), "", "", "", ""]
        folder = re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), folder)
        if folder and (real + "/").startswith(folder.rstrip("/") + "/") and len(folder) >= longest:
            longest, remote = len(folder), kind.startswith(_REMOTE) and "aname=drvfs" not in options
    return remote
