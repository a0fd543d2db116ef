"""Writes frames to a file of any format: streams them to ffmpeg, tags the file, and renames it when it is complete."""

import errno
import functools
import math
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from ...modelscope.errors import RequestError
from .encoder import FORBIDDEN, FULL, encode
from .ffmpeg import FfmpegError, OutputError, another_ffmpeg, ask_ffmpeg, find_ffmpeg, input_file
from .formats import Format

TRIAL_SIZE, TRIAL_PATIENCE = 16, 30
"""Side in pixels of the frames with which a format is tried, and seconds without progress after which that fails."""
PATIENCE = 300
"""Seconds without progress after which writing a video fails; a slow computer is not stuck."""
SHORTEST_SOUND = 0.01
"""Length in seconds of the shortest soundtrack that is looped to the video's length."""
LITTLE_SPACE = 100_000
"""Number of free bytes below which a disk counts as full."""


class Sound(NamedTuple):
    """The sound of a video. path: a file with sound, or empty; start: the second at which it begins in that file."""

    path: str = ""
    start: float = 0.0


NO_SOUND = Sound()


def cannot_write(folder: Path, error: OSError) -> OutputError:
    """Return the error for a folder in which a video cannot be written."""
    reason = error.strerror or error
    return OutputError(f"The video could not be written to {folder}: {reason}. {_advice(folder, error)}")


def _advice(folder: Path, error: OSError) -> str:
    """Return a remedy for a known cause, or general advice for others."""
    if error.errno in FORBIDDEN:
        return "Check that you have permission to write there, or choose another output folder."
    if error.errno in FULL or _is_full(folder):
        return "There is no free space: make room there, or choose another output folder."
    if error.errno == errno.EFBIG:
        return (
            "Check the limit on the size of files (ulimit -f), your quota and the free space there, or choose another "
            "output folder."
        )
    if isinstance(error, FfmpegError) and folder.is_dir():
        return f"Choose another format, or another ffmpeg. {another_ffmpeg(find_ffmpeg())}"
    return "Choose another output folder."


def _is_full(folder: Path) -> bool:
    """Return whether a folder's disk is full. A folder without files on a disk reports no space at all."""
    try:
        disk = shutil.disk_usage(folder)
    except OSError:
        return False
    return disk.total > 0 and disk.free < LITTLE_SPACE


def write_video(
    path: Path, frames: Tensor, fps: float, kind: Format, infotext: str = "", sound: Sound = NO_SOUND
) -> str:
    """Write RGB bytes [f, h, w, 3] to `path`, which is replaced. Raises OutputError; leaves no partial file.

    sound: for formats that have it; cut or looped to the video's length.

    Return a message if the video had to be written without the sound, else an empty string.
    """
    try:
        _write(path, frames, kind, _command(frames, fps, kind, sound), infotext)
    except OutputError:
        if not (sound.path and kind.audio):
            raise
        _write(path, frames, kind, _command(frames, fps, kind, NO_SOUND), infotext)
        return f"{path.name} has no sound: the soundtrack {Path(sound.path).name!r} could no longer be read."
    return ""


def _write(path: Path, frames: Tensor, kind: Format, command: list[str], infotext: str) -> None:
    partial = kind.partial(path)
    try:
        if kind.is_folder:
            partial.mkdir()
        encode(partial, frames, command, infotext, PATIENCE)
        if kind.tag and infotext:
            for file in partial.iterdir() if kind.is_folder else (partial,):
                file.write_bytes(kind.tag(file.read_bytes(), infotext))
        partial.replace(path)
    except OSError as error:
        raise cannot_write(path.parent, error) from error
    finally:
        _remove(partial)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        # On Windows another program may still have it open.
        with suppress(OSError):
            path.unlink()


def _command(frames: Tensor, fps: float, kind: Format, sound: Sound) -> list[str]:
    """Return ffmpeg's command without the output file; input 0 is the frames, 1 the metadata, 2 the sound."""
    count, height, width, _ = frames.shape
    seconds = count / fps
    inputs = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-r", f"{fps:g}", "-i", "-"]
    inputs += ["-f", "ffmetadata", "-i", "{metadata}"]
    # The filter would leave nothing of a video that is shorter than a frame.
    slower = f"fps={kind.fastest:g}" if fps > kind.fastest and seconds * kind.fastest >= 1 else ""
    filters = ",".join(filter(None, (slower, kind.filters)))
    outputs = ["-map", "0:v", "-map_metadata", "1", *kind.video, *(("-vf", filters) if filters else ())]
    if sound.path and kind.audio:
        # The loop is limited: ffmpeg would loop a file for ever that has become empty meanwhile.
        inputs += ["-stream_loop", str(math.ceil(seconds / SHORTEST_SOUND))]
        inputs += ["-ss", f"{sound.start:g}", *input_file(Path(sound.path))]
        outputs += ["-map", "2:a:0", *kind.audio]
    # -bitexact: the same frames give the same file, without a date or a random identifier.
    return [
        find_ffmpeg(),
        "-y",
        "-v",
        "error",
        *inputs,
        *outputs,
        "-t",
        f"{seconds:.6f}",
        "-bitexact",
        "-f",
        kind.muxer,
    ]


def check_format(kind: Format) -> None:
    """Check that ffmpeg can write a format, by trying it once per process. Raises OutputError."""
    _try_format(find_ffmpeg(), kind)


@functools.cache
def _try_format(ffmpeg: str, kind: Format) -> None:
    clip = torch.zeros(2, TRIAL_SIZE, TRIAL_SIZE, 3, dtype=torch.uint8)
    try:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, f"trial{kind.suffix}")
            if kind.is_folder:
                path.mkdir()
            encode(path, clip, _command(clip, 1, kind, NO_SOUND), "", TRIAL_PATIENCE)
    except FfmpegError as error:
        raise OutputError(
            f"{kind.name} cannot be written by {ffmpeg}: {error.strerror or error}. Choose another format, or another "
            f"ffmpeg. {another_ffmpeg(ffmpeg)}"
        ) from error
    except OSError as error:
        raise OutputError(
            f"The folder for temporary files cannot be used: {error}. Make room there, or set the environment variable "
            "TMPDIR to another folder."
        ) from error


def check_soundtrack(soundtrack: str) -> None:
    """Check that a file exists and has sound. Raises RequestError."""
    if not has_sound(Path(soundtrack)):
        name = Path(soundtrack).name
        raise RequestError(f"The soundtrack {name!r} cannot be read as sound. Choose another file or none.")


def has_sound(path: Path) -> bool:
    """Return whether a file has sound that can be read: it may declare some but hold none."""
    try:
        return bool(ask_ffmpeg(path, "-map", "0:a:0", "-frames:a", "1", "-f", "u8", "-"))
    except OSError:
        return False
