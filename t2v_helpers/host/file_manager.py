"""Shows folders to the person."""

import os
import subprocess
import sys
from pathlib import Path

from ..ffmpeg import OutputError


def open_folder(folder: Path) -> None:
    """Show a folder, made if it is not there yet, in the system's file manager. Raises OutputError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if sys.platform == "win32":
            os.startfile(folder)
        else:
            subprocess.Popen(["open" if sys.platform == "darwin" else "xdg-open", str(folder)], start_new_session=True)
    except OSError as error:
        raise OutputError(f"No file manager could be started here. The folder is {folder}") from error
