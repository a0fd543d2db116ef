"""Finds ffmpeg, starts it, and makes sure that it ends."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ...modelscope.errors import TextToVideoError
from ..locks import for_children
from ..signals import check, held

# A console sends Ctrl-C to all of its processes; an ffmpeg that is ended by it looks as if the disk were full.
OUT_OF_REACH_OF_CTRL_C: dict[str, Any]
if sys.platform == "win32":
    OUT_OF_REACH_OF_CTRL_C = {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP | subprocess.CREATE_NO_WINDOW}
else:
    OUT_OF_REACH_OF_CTRL_C = {"start_new_session": True}
VARIABLE = "IMAGEIO_FFMPEG_EXE"
"""The environment variable with which a person chooses an ffmpeg; imageio-ffmpeg uses it."""
LONGEST_WAIT = 60
"""Maximum number of seconds for reading from one file."""
LAST_WAIT = 10
"""Seconds to wait for a killed process to be gone; the system may keep one that waits for a network drive."""
POLL = 0.1
"""Seconds between checks for a process's end and for Ctrl-C."""
INPUT_FORMATS = (
    "mov,matroska,avi,flv,asf,mpegts,mpeg,ogg,mxf,nut,gif,wav,w64,mp3,flac,aac,aiff,au,caf,amr,ac3,eac3,dts,"
    "wv,ape,tta,webp_pipe"
)
"""Containers that hold what they play. Playlists (ffconcat, m3u8, a %d in the name) would read other files.

Of picture formats, only those that a video may be saved as: a small PNG may unpack to gigabytes.
"""


class OutputError(TextToVideoError):
    """The error for a file or folder that cannot be written."""


class FfmpegError(OSError):
    """The error of ffmpeg. strerror or the only argument: its message; errno: the system's error, if known."""


def find_ffmpeg() -> str:
    """Return the path of imageio-ffmpeg's ffmpeg, or of the one on the search path. Raises OutputError."""
    try:
        import imageio_ffmpeg

        return _absolute(str(imageio_ffmpeg.get_ffmpeg_exe()))
    except (ImportError, RuntimeError):
        found = shutil.which("ffmpeg")
    if found is None:
        raise OutputError(
            "ffmpeg, which writes the videos, was not found. Install it with: "
            f'"{sys.executable}" -m pip install imageio-ffmpeg'
        )
    return found


def _absolute(program: str) -> str:
    """Return a path that is valid in any working directory; a bare name is searched for as usual."""
    return os.path.abspath(program) if os.path.dirname(program) else program  # noqa: PTH120


def another_ffmpeg(ffmpeg: str) -> str:
    """Return a sentence about how to get another ffmpeg than this one."""
    if _absolute(os.environ.get(VARIABLE, "")) == ffmpeg:
        return f"The environment variable {VARIABLE} points to it. Point that to a complete ffmpeg, or unset it."
    return f'Install a complete one with: "{sys.executable}" -m pip install --force-reinstall imageio-ffmpeg'


def input_file(path: Path) -> list[str]:
    """Return arguments for an input file: its name cannot pass for an option or an address, nor can it name others."""
    return ["-protocol_whitelist", "file", "-format_whitelist", INPUT_FORMATS, "-i", f"file:{path.absolute()}"]


@contextmanager
def at_work(command: Sequence[str], **options: Any) -> Iterator["subprocess.Popen[bytes]"]:
    """Run ffmpeg within the block, and end it however the block is left. Raises OutputError if it cannot be started."""
    with held():
        try:
            process = subprocess.Popen(command, **options, **OUT_OF_REACH_OF_CTRL_C, **for_children())
        except OSError as error:
            reason = error.strerror or error
            raise OutputError(
                f"ffmpeg cannot be started as {command[0]}: {reason}. {another_ffmpeg(command[0])}"
            ) from error
        try:
            yield process
        finally:
            _end(process)


def _end(process: "subprocess.Popen[bytes]") -> None:
    """End a process and, except on Windows, those that it started."""
    if process.poll() is None:
        with suppress(OSError):
            if sys.platform == "win32":
                process.kill()
            else:
                os.killpg(process.pid, signal.SIGKILL)
    with suppress(subprocess.TimeoutExpired):
        process.wait(LAST_WAIT)


def ask_ffmpeg(path: Path, *output: str) -> bytes:
    """Return ffmpeg's output for a file, with these output arguments.

    Raises:
        OSError: ffmpeg cannot read the file.
        OutputError: ffmpeg cannot be found or started.
    """
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    try:
        with at_work([find_ffmpeg(), "-v", "error", *input_file(path), *output], **pipes) as process:
            answer, _ = wait_for(process)
    except ValueError as error:
        raise OSError(f"{path} is not a file name") from error
    if process.returncode:
        raise OSError(f"ffmpeg cannot read {path}")
    return answer


def wait_for(process: "subprocess.Popen[bytes]") -> tuple[bytes, bytes]:
    """Return what a process wrote to its standard output and error; nothing if it does not end in LONGEST_WAIT."""
    deadline = time.monotonic() + LONGEST_WAIT
    while time.monotonic() < deadline:
        check()
        with suppress(subprocess.TimeoutExpired):
            return process.communicate(timeout=POLL)
    return b"", b""
