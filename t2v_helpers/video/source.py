"""Reads a piece of any video as frames: from a start, at a rate, in a size. Nothing more of it is decoded or held."""

import queue
import re
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO, NamedTuple

import torch
from torch import Tensor

from ...modelscope.errors import RequestError
from ..signals import check
from .ffmpeg import POLL, at_work, find_ffmpeg, input_file, wait_for

CROP, FIT, STRETCH = "crop", "fit", "stretch"
"""How frames of another shape become that of the video: cut off what is beyond it, pad with black, or distort."""
PATIENCE = 60
"""Seconds without a frame after which a source counts as unreadable; a start far into a long video takes some."""
MOST_PIXELS = 1 << 27
"""Largest frame that is read, in pixels: four times 8K."""
AHEAD = 4
"""Number of frames that may be read before somebody takes them."""
CHANNELS = 4
FEWEST_FRAMES = 2
"""Number of frames that make a video."""
_SCALES = {
    CROP: "scale={w}:{h}:force_original_aspect_ratio=increase:flags=lanczos,crop={w}:{h}",
    FIT: "scale='max(2,trunc(iw*min({w}/iw,{h}/ih)))':'max(2,trunc(ih*min({w}/iw,{h}/ih)))':flags=lanczos,"
    "pad={w}:{h}:(ow-iw)/2:(oh-ih)/2",
    STRETCH: "scale={w}:{h}:flags=lanczos",
}
_SQUARE_PIXELS = "scale=iw*sar:ih,setsar=1"
# Brightness beyond what other videos have is compressed; without this, colours would look pale.
_FROM_HDR = (
    "zscale=t=linear:npl=100",
    "format=gbrpf32le",
    "zscale=p=bt709",
    "tonemap=mobius:desat=0",
    "zscale=t=bt709:m=bt709:r=tv",
    "format=yuv420p",
)
_HDR = re.compile(r"smpte2084|arib-std-b67")
_RATE = re.compile(r"([\d.]+k?) fps")
_TICKS = re.compile(r"([\d.]+k?) tbr")
_LENGTH = re.compile(r"Duration: (\d+):(\d+):([\d.]+)")
_SIZE = re.compile(r"Parsed_showinfo.* s:(\d+)x(\d+) ")
_PICTURES = re.compile(r"^\s*Stream #0:\d+.*: Video: .*$", re.MULTILINE)


class About(NamedTuple):
    """What is known of a video before it is read.

    width, height: of its frames in square pixels, after its rotation; seconds, rate: None if it does not say.
    """

    width: int
    height: int
    seconds: float | None
    rate: float | None
    is_hdr: bool


class Piece(NamedTuple):
    """The piece of a video to read: so many frames from a start in seconds, at a rate in frames per second."""

    start: float
    rate: float
    frames: int


class Shape(NamedTuple):
    """The size that frames get, in pixels, and how."""

    width: int
    height: int
    mode: str = CROP


def check_exists(path: Path) -> None:
    """Check that a file is there. Raises RequestError."""
    if not path.is_file():
        raise RequestError(f"There is no file {path.name!r}. Check the path.")


def examine(path: Path) -> About:
    """Return what a video says about itself. Raises RequestError if it has no pictures that can be read."""
    check_exists(path)
    command = [find_ffmpeg(), "-hide_banner", *_input(path), "-map", "0:v:0", "-frames:v", "1"]
    command += ["-vf", f"{_SQUARE_PIXELS},showinfo", "-f", "null", "-"]
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
    with at_work(command, **pipes) as process:
        said = wait_for(process)[1].decode(errors="replace")
    pictures, size = _PICTURES.search(said), _SIZE.search(said)
    if process.returncode or not pictures or not size:
        raise RequestError(
            f"The source {path.name!r} cannot be read as a video. Choose a video file; a single picture belongs "
            "under Images as frames."
        )
    length, rate = _LENGTH.search(said), _RATE.search(pictures[0]) or _TICKS.search(pictures[0])
    seconds = int(length[1]) * 3600 + int(length[2]) * 60 + float(length[3]) if length else None
    return About(
        int(size[1]), int(size[2]), seconds, _number(rate[1]) if rate else None, _HDR.search(pictures[0]) is not None
    )


def _number(text: str) -> float:
    return float(text.removesuffix("k")) * (1000 if text.endswith("k") else 1)


def _input(path: Path) -> list[str]:
    return ["-max_pixels", str(MOST_PIXELS), *input_file(path)]


def read_piece(path: Path, piece: Piece, shape: Shape, about: About | None = None) -> Tensor:
    """Return a piece of a video as RGB bytes [n, height, width, 3]; fewer frames than asked for if it ends before.

    Frames are chosen by their time. Transparent parts become white, as in the WebUI.

    Args:
        path: The video.
        piece: The piece to read.
        shape: The frames' size.
        about: What `examine` says, if it is known already.

    Raises:
        RequestError: There are no frames from the start on.
    """
    about = about or examine(path)
    frames = read_frames(path, piece, shape, about)
    if not frames and about.seconds is not None and piece.start >= about.seconds:
        raise RequestError(
            f"The source {path.name!r} is {about.seconds:.1f} seconds long, so it cannot start at {piece.start:g}."
        )
    if not frames:
        raise RequestError(f"The source {path.name!r} has no readable frame from second {piece.start:g} on.")
    if len(frames) < min(FEWEST_FRAMES, piece.frames):
        raise RequestError(
            f"The source {path.name!r} has only one frame from second {piece.start:g} on. Start earlier, or use it "
            "under Images as frames."
        )
    return torch.stack(frames)


def read_frames(path: Path, piece: Piece, shape: Shape, about: About) -> list[Tensor]:
    """Return what there is of a piece as frames [height, width, 3], maybe nothing. Raises RequestError."""
    check_exists(path)
    return [_flatten(frame) for frame in _stream(path, piece, shape, about)]


def _flatten(pixels: Tensor) -> Tensor:
    """Return RGBA bytes [h, w, 4] on white: RGB bytes [h, w, 3]."""
    colour, alpha = pixels[..., :3], pixels[..., 3:]
    if bool((alpha == alpha.new_tensor(255)).all()):
        return colour.clone()
    return torch.lerp(torch.tensor(255.0), colour.float(), alpha.float() / 255).round().to(torch.uint8)


def _stream(path: Path, piece: Piece, shape: Shape, about: About) -> Iterator[Tensor]:
    """Yield frames as RGBA bytes [height, width, 4], while ffmpeg goes on reading."""
    filters = [f"fps={piece.rate:g}", _SQUARE_PIXELS, *(_FROM_HDR if about.is_hdr else ())]
    filters.append(_SCALES[shape.mode].format(w=shape.width, h=shape.height))
    command = [find_ffmpeg(), "-v", "error", "-ss", f"{piece.start:.6f}", *_input(path), "-map", "0:v:0"]
    command += ["-vf", ",".join(filters), "-frames:v", str(piece.frames), "-pix_fmt", "rgba", "-f", "rawvideo", "-"]
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with at_work(command, **pipes) as process:
        assert process.stdout
        reader = FrameReader(process.stdout, shape.width * shape.height * CHANNELS)
        reader.start()
        try:
            for pixels in reader.frames():
                yield torch.frombuffer(pixels, dtype=torch.uint8).view(shape.height, shape.width, CHANNELS)
        except TimeoutError as error:
            raise RequestError(f"The source {path.name!r} could not be read: {error}.") from error
        finally:
            reader.stop()


class FrameReader(threading.Thread):
    """A thread that reads frames from a pipe, which blocks while ffmpeg is busy or stuck."""

    def __init__(self, pipe: IO[bytes], size: int) -> None:
        super().__init__(daemon=True)
        self._pipe, self._size = pipe, size
        self._read: queue.Queue[bytearray | None] = queue.Queue(AHEAD)
        self._stopped = threading.Event()

    def run(self) -> None:
        with suppress(OSError, ValueError):
            while len(pixels := bytearray(self._pipe.read(self._size))) == self._size:
                self._put(pixels)
        self._put(None)

    def _put(self, pixels: bytearray | None) -> None:
        while not self._stopped.is_set():
            with suppress(queue.Full):
                self._read.put(pixels, timeout=POLL)
                return

    def stop(self) -> None:
        """End the thread, whatever it waits for; ffmpeg has to end, too."""
        self._stopped.set()

    def frames(self) -> Iterator[bytearray]:
        """Yield each frame's bytes. Raises TimeoutError if none comes for long."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            check()
            with suppress(queue.Empty):
                pixels = self._read.get(timeout=POLL)
                if pixels is None:
                    return
                deadline = time.monotonic() + PATIENCE
                yield pixels
        raise TimeoutError(f"ffmpeg did nothing for {PATIENCE} seconds")
