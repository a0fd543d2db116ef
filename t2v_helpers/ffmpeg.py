"""Where ffmpeg is, and how it is started."""

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from ..modelscope.errors import TextToVideoError

# A console sends Ctrl-C to every process it started; an ffmpeg that ends of it looks like a full disk.
OUT_OF_REACH_OF_CTRL_C: dict[str, Any]
if sys.platform == "win32":
    OUT_OF_REACH_OF_CTRL_C = {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP | subprocess.CREATE_NO_WINDOW}
else:
    OUT_OF_REACH_OF_CTRL_C = {"start_new_session": True}
LONGEST_WAIT = 60
"""Seconds that looking into one file may take."""


class OutputError(TextToVideoError):
    """A file or folder that cannot be written."""


def find_ffmpeg() -> str:
    """The ffmpeg that imageio-ffmpeg brings, or the one on the search path. Raises OutputError."""
    try:
        import imageio_ffmpeg

        return str(imageio_ffmpeg.get_ffmpeg_exe())
    except (ImportError, RuntimeError):
        found = shutil.which("ffmpeg")
    if found is None:
        raise OutputError(
            "There is no ffmpeg to write videos with. Install it with: "
            f'"{sys.executable}" -m pip install imageio-ffmpeg'
        )
    return found


def input_file(path: Path) -> list[str]:
    """A file as input: named so that it cannot pass for an option or an address, and referring to files only."""
    return ["-protocol_whitelist", "file", "-i", f"file:{path.absolute()}"]


def ask_ffmpeg(path: Path, *output: str) -> bytes:
    """What ffmpeg, given these output arguments, says of a file. Raises OSError where it cannot read that file."""
    command = [find_ffmpeg(), "-v", "error", *input_file(path), *output]
    quiet: dict[str, Any] = {"stdin": subprocess.DEVNULL, "capture_output": True, **OUT_OF_REACH_OF_CTRL_C}
    try:
        return bytes(subprocess.run(command, check=True, timeout=LONGEST_WAIT, **quiet).stdout)
    except (subprocess.SubprocessError, ValueError) as error:
        raise OSError(f"ffmpeg cannot read {path}") from error
