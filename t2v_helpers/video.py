"""Frames into a video file: streamed into ffmpeg, renamed only when complete."""

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import imageio_ffmpeg
from torch import Tensor

from ..modelscope.errors import TextToVideoError

QUALITY = ("-preset", "slow", "-crf", "17")
# A console sends Ctrl-C to every process it started; an ffmpeg that ends of it looks like a full disk.
_OUT_OF_REACH_OF_CTRL_C: dict[str, Any]
if sys.platform == "win32":
    _OUT_OF_REACH_OF_CTRL_C = {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP}
else:
    _OUT_OF_REACH_OF_CTRL_C = {"start_new_session": True}


class OutputError(TextToVideoError):
    """A file or folder that cannot be written."""


def cannot_write(folder: Path, error: OSError) -> OutputError:
    """The error for a folder that takes no file."""
    return OutputError(
        f"The video could not be written to {folder}: {error.strerror or error}. "
        "Check the free space there and that you may write, or choose another output folder."
    )


def find_ffmpeg() -> str:
    """The ffmpeg that imageio-ffmpeg brings or finds. Raises OutputError."""
    try:
        return str(imageio_ffmpeg.get_ffmpeg_exe())
    except RuntimeError as error:
        raise OutputError(
            "There is no ffmpeg to write videos with. Install it with: pip install imageio-ffmpeg"
        ) from error


def write_mp4(path: Path, frames: Tensor, fps: float) -> None:
    """Write RGB bytes [f, h, w, 3] as H.264 in MP4, replacing `path`. Raises OutputError; leaves no partial file."""
    partial = path.with_name(f"{path.stem}.partial{path.suffix}")
    try:
        _encode(partial, frames, fps)
        partial.replace(path)
    except OSError as error:
        raise cannot_write(path.parent, error) from error
    finally:
        partial.unlink(missing_ok=True)


def _encode(path: Path, frames: Tensor, fps: float) -> None:
    _, height, width, _ = frames.shape
    raw = ("-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-r", f"{fps:g}", "-i", "-")
    h264 = ("-c:v", "libx264", "-pix_fmt", "yuv420p", *QUALITY, "-movflags", "+faststart")
    command = [find_ffmpeg(), "-y", "-v", "error", *raw, *h264, str(path.absolute())]
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=log, **_OUT_OF_REACH_OF_CTRL_C
        )
        try:
            _feed(process, frames)
            failed = process.wait() != 0
        except BrokenPipeError:
            failed = True
        finally:
            process.kill()
            process.wait()
        if failed:
            log.seek(0)
            raise OSError(_last_line(log.read()))


def _feed(process: "subprocess.Popen[bytes]", frames: Tensor) -> None:
    assert process.stdin
    with process.stdin as pipe:
        for frame in frames:
            pipe.write(frame.numpy().tobytes())


def _last_line(log: bytes) -> str:
    lines = log.decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else "ffmpeg ended without a message"
