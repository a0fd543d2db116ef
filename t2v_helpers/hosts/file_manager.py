"""Shows folders to the person."""

import os
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

from ..video.ffmpeg import OutputError

AT_ONCE = 2
"""Seconds within which one that cannot work says so."""


def open_folder(folder: Path) -> None:
    """Show a folder, made if it is not there yet, in the system's file manager. Raises OutputError."""
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
    # Whoever waits for it then keeps no zombie.
    threading.Thread(target=process.wait, daemon=True).start()
    with suppress(subprocess.TimeoutExpired):
        if code := process.wait(AT_ONCE):
            raise OSError(f"{program} ended with {code}")
