"""Feeds frames to ffmpeg and watches it: ffmpeg is ended if it is stuck, or on Ctrl-C."""

import errno
import os
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import IO

from torch import Tensor

from ..signals import check
from .ffmpeg import LAST_WAIT, POLL, FfmpegError, at_work
from .metadata import ffmetadata

FRAME_NAMES = "%05d.png"
FULL = (errno.ENOSPC, errno.EDQUOT)
FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)
_REASONS = {os.strerror(code): code for code in (*FULL, *FORBIDDEN, errno.EFBIG)}
"""The system's error messages, which ffmpeg prints as well, and their codes."""


def encode(path: Path, frames: Tensor, command: list[str], infotext: str, patience: float) -> None:
    """Write frames to a file, or into an existing folder, with ffmpeg.

    Args:
        path: The file or folder.
        frames: RGB bytes [f, h, w, 3].
        command: ffmpeg's command without its output; `{metadata}` stands for the file with the infotext.
        infotext: The video's settings.
        patience: Seconds without a frame taken or a byte written after which ffmpeg counts as stuck and is ended.

    Raises:
        FfmpegError: ffmpeg failed.
        OSError: Temporary files cannot be written.
        OutputError: ffmpeg cannot be started.
    """
    with tempfile.TemporaryDirectory() as folder, Path(folder, "log").open("w+b") as log:
        metadata = Path(folder, "metadata")
        metadata.write_text(ffmetadata(infotext), encoding="utf-8", newline="\n")
        target = FRAME_NAMES if path.is_dir() else str(path.absolute())
        line = [str(metadata) if part == "{metadata}" else part for part in command] + [target]
        where = {"cwd": path if path.is_dir() else None}
        with at_work(line, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=log, **where) as process:
            assert process.stdin
            feeder = Feeder(process.stdin, frames)
            feeder.start()
            _watch(process, feeder, path, patience)
        feeder.finish()
        if process.returncode or feeder.error or not _size(path):
            log.seek(0)
            raise _failure(process.returncode, log.read().decode(errors="replace"))


class Feeder(threading.Thread):
    """A thread that writes frames into a pipe, which blocks if ffmpeg is stuck."""

    def __init__(self, pipe: IO[bytes], frames: Iterable[Tensor]) -> None:
        super().__init__(daemon=True)
        self._pipe, self._frames = pipe, frames
        self.taken = 0
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            with self._pipe:
                for frame in self._frames:
                    self._pipe.write(frame.numpy().tobytes())
                    self.taken += 1
        except BaseException as error:  # noqa: BLE001 - raised by finish()
            self.error = error

    def finish(self) -> None:
        """Wait for the thread's end, and raise its error, except that of a closed pipe, which ffmpeg's log explains."""
        self.join(LAST_WAIT)
        if self.error and not isinstance(self.error, OSError):
            raise self.error


def _watch(process: "subprocess.Popen[bytes]", feeder: Feeder, path: Path, patience: float) -> None:
    """Wait for ffmpeg's end, for as long as it takes frames or writes something. Raises FfmpegError if it does not."""
    seen, since = (-1, -1), 0.0
    while process.poll() is None:
        check()
        if (now := (feeder.taken, _size(path))) != seen:
            seen, since = now, time.monotonic()
        elif time.monotonic() - since > patience:
            raise FfmpegError(f"ffmpeg did nothing for {patience:.0f} seconds and was stopped")
        with suppress(subprocess.TimeoutExpired):
            process.wait(POLL)


def _size(path: Path) -> int:
    """Return the size of a file in bytes, or the number of files in a folder."""
    try:
        return len(os.listdir(path)) if path.is_dir() else path.stat().st_size
    except OSError:
        return 0


def _failure(code: int, log: str) -> FfmpegError:
    """Return the error for ffmpeg's exit code and log, with the system's error code if it is known."""
    lines = log.strip().splitlines() or ["ffmpeg ended without a message"]
    encoder = next((line for line in lines if "Unknown encoder" in line), None)
    if hasattr(signal, "SIGXFSZ") and code == -signal.SIGXFSZ:
        return FfmpegError(errno.EFBIG, os.strerror(errno.EFBIG))
    for reason, number in _REASONS.items():
        if reason in log:
            return FfmpegError(number, reason)
    return FfmpegError(encoder or lines[-1])
