"""Detects files on network drives, where another computer may shorten them while they are mapped."""

import os
import re
import sys
from pathlib import Path

_REMOTE = ("nfs", "cifs", "smb", "9p", "afs", "ceph", "glusterfs", "fuse.")
"""Prefixes of Linux's names for network file systems. WSL uses 9p for Windows' local drives, too."""
_MOUNTS = Path("/proc/self/mounts")
_DRIVE_REMOTE = 4


def is_remote(path: Path) -> bool:
    """Return whether a file is known to be on a network drive. Always False on macOS, which has no simple test."""
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

    mounts: Linux's list of mounts, with device, folder, kind and options on each line; a later mount hides an earlier
    one on the same folder.
    """
    longest, remote = 0, False
    for line in mounts.splitlines():
        _, folder, kind, options, *_ = [*line.split(" "), "", "", "", ""]
        folder = re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), folder)
        if folder and (real + "/").startswith(folder.rstrip("/") + "/") and len(folder) >= longest:
            longest, remote = len(folder), kind.startswith(_REMOTE) and "aname=drvfs" not in options
    return remote
