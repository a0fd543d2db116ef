"""Frames into a file of any format: streamed into ffmpeg, tagged, renamed only when complete."""

import functools
import math
import shutil
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

import torch
from torch import Tensor

from ..modelscope.errors import RequestError
from .ffmpeg import OUT_OF_REACH_OF_CTRL_C, OutputError, ask_ffmpeg, find_ffmpeg, input_file
from .formats import Format
from .locks import for_children
from .tags import ffmetadata

FRAME_NAMES = "%05d.png"
TRIAL_SIZE = 16
"""Pixels each way of the frames that a format is tried with."""
SHORTEST_SOUND = 0.01
"""Seconds of a soundtrack that is still looped to the video's length."""


def cannot_write(folder: Path, error: OSError) -> OutputError:
    """The error for a folder that takes no file."""
    return OutputError(
        f"The video could not be written to {folder}: {error.strerror or error}. "
        "Check the free space there and that you may write, or choose another output folder."
    )


def write_video(path: Path, frames: Tensor, fps: float, kind: Format, infotext: str = "", soundtrack: str = "") -> str:
    """Write RGB bytes [f, h, w, 3], replacing `path`. Raises OutputError; leaves no partial file.

    soundtrack: path of a file with sound, for formats that have it; cut or looped to the video's length. Says what came
    of it where the video had to do without, else nothing.
    """
    try:
        _write(path, frames, kind, _command(frames, fps, kind, soundtrack), infotext)
    except OutputError:
        if not (soundtrack and kind.audio):
            raise
        _write(path, frames, kind, _command(frames, fps, kind, ""), infotext)
        return f"{path.name} has no sound: the soundtrack {Path(soundtrack).name!r} could not be read any more."
    return ""


def _write(path: Path, frames: Tensor, kind: Format, command: list[str], infotext: str) -> None:
    partial = kind.partial(path)
    try:
        if kind.is_folder:
            partial.mkdir()
        _encode(partial, frames, command, infotext)
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
        # Windows may still be looking at it.
        with suppress(OSError):
            path.unlink()


def _command(frames: Tensor, fps: float, kind: Format, soundtrack: str) -> list[str]:
    """ffmpeg's arguments but for the output; input 0 is the frames, 1 the metadata, 2 the sound."""
    count, height, width, _ = frames.shape
    seconds = count / fps
    inputs = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-r", f"{fps:g}", "-i", "-"]
    inputs += ["-f", "ffmetadata", "-i", "{metadata}"]
    outputs = ["-map", "0:v", "-map_metadata", "1", *kind.video]
    if soundtrack and kind.audio:
        # Not endlessly: ffmpeg would loop a file for ever that has become empty meanwhile.
        inputs += ["-stream_loop", str(math.ceil(seconds / SHORTEST_SOUND)), *input_file(Path(soundtrack))]
        outputs += ["-map", "2:a:0", *kind.audio]
    # Files of the same frames are the same: no date, no random identifier.
    return [find_ffmpeg(), "-y", "-v", "error", *inputs, *outputs, "-t", f"{seconds:.6f}", "-bitexact"]


def check_format(kind: Format) -> None:
    """Raise OutputError unless ffmpeg can write the format; tried once."""
    _try_format(find_ffmpeg(), kind)


@functools.cache
def _try_format(ffmpeg: str, kind: Format) -> None:
    clip = torch.zeros(2, TRIAL_SIZE, TRIAL_SIZE, 3, dtype=torch.uint8)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"trial{kind.suffix}")
        try:
            if kind.is_folder:
                path.mkdir()
            _encode(path, clip, _command(clip, 1, kind, ""), "")
        except OSError as error:
            raise OutputError(
                f"{kind.name} cannot be written by {ffmpeg}: {error}. Choose another format, or install a complete "
                f'ffmpeg with: "{sys.executable}" -m pip install --force-reinstall imageio-ffmpeg'
            ) from error


def check_soundtrack(soundtrack: str) -> None:
    """Raise RequestError unless the file is there and has sound."""
    try:
        # A file may declare sound and hold none.
        if not ask_ffmpeg(Path(soundtrack), "-map", "0:a:0", "-frames:a", "1", "-f", "u8", "-"):
            raise OSError("no sample")
    except OSError as error:
        name = Path(soundtrack).name
        raise RequestError(f"The soundtrack {name!r} cannot be read as sound. Choose another file or none.") from error


def _encode(path: Path, frames: Tensor, command: list[str], infotext: str) -> None:
    with tempfile.TemporaryDirectory() as folder, Path(folder, "log").open("w+b") as log:
        metadata = Path(folder, "metadata")
        metadata.write_text(ffmetadata(infotext), encoding="utf-8", newline="\n")
        target = FRAME_NAMES if path.is_dir() else str(path.absolute())
        process = subprocess.Popen(
            [str(metadata) if part == "{metadata}" else part for part in command] + [target],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=log,
            cwd=path if path.is_dir() else None,
            **OUT_OF_REACH_OF_CTRL_C,
            **for_children(),
        )
        try:
            _feed(process, frames)
            failed = process.wait() != 0
        except OSError:
            # A closed pipe: ffmpeg has ended early and has said why.
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
