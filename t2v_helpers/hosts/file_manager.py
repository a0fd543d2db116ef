"""Opens folders in the system's file manager."""

import os
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

from ..video.ffmpeg import OutputError

AT_ONCE = 2
"""Seconds within which a file manager that cannot work is expected to end with an error."""


def open_folder(folder: Path) -> None:
    """Show a folder in the system's file manager; create it if it is missing. Raises OutputError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if sys.platform == "win32":
            os.startfile(folder)
        else:
            _start("open" if sys.platform == "darwin" else "xdg-open", folder)
    except OSError as error:
        raise OutputError(f"No file manager could be started here. The folder is {folder}") from error


def _start(program: str, folder: Path) -> None:
    process = subprocess.Popen([program, str(folder)], start_new_session=True)
    # This thread waits for the process to end, so that it does not stay a zombie.
    threading.Thread(target=process.wait, daemon=True).start()
    with suppress(subprocess.TimeoutExpired):
        if code := process.wait(AT_ONCE):
            raise OSError(f"{program} ended with {code}")
