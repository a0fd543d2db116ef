"""Adds frames between those of a video with ffmpeg's motion interpolation."""

import subprocess
from collections.abc import Callable

import torch
from torch import Tensor

from .encoder import Feeder
from .ffmpeg import OutputError, another_ffmpeg, at_work, find_ffmpeg
from .source import FEWEST_FRAMES, FrameReader

OnFrame = Callable[[int, int], None]
"""Called with the number of frames that are done, and of all; it may raise to interrupt."""


def interpolate_motion(frames: Tensor, factor: int, on_frame: OnFrame = lambda *_: None) -> Tensor:
    """Return RGB bytes [(f - 1) factor + 1, h, w, 3]: those of a video [f, h, w, 3], and others between each two.

    on_frame: called with the number of frames that are done, and of all; it may raise to interrupt.

    Raises:
        OutputError: ffmpeg cannot do it.
    """
    count, height, width, _ = frames.shape
    if count < FEWEST_FRAMES or factor == 1:
        return frames
    wanted = (count - 1) * factor + 1
    # The filter leaves out the last frames.
    filters = f"tpad=stop=3:stop_mode=clone,minterpolate=fps={factor}:scd=none"
    raw = ["-f", "rawvideo", "-pix_fmt", "rgb24"]
    command = [find_ffmpeg(), "-v", "error", *raw, "-s", f"{width}x{height}", "-r", "1", "-i", "-"]
    command += ["-vf", filters, "-frames:v", str(wanted), *raw, "-"]
    with at_work(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdin and process.stdout
        Feeder(process.stdin, frames).start()
        found = _read(FrameReader(process.stdout, height * width * 3), wanted, on_frame)
    if len(found) != wanted:
        raise OutputError(f"No frames could be added to the video. {another_ffmpeg(find_ffmpeg())}")
    mixed = torch.stack(found).view(wanted, height, width, 3)
    mixed[::factor] = frames
    return mixed


def _read(reader: FrameReader, wanted: int, on_frame: OnFrame) -> list[Tensor]:
    """Return all frames as flat bytes, while ffmpeg goes on. Raises OutputError if it is stuck."""
    found: list[Tensor] = []
    reader.start()
    try:
        for pixels in reader.frames():
            found.append(torch.frombuffer(pixels, dtype=torch.uint8))
            on_frame(len(found), wanted)
    except TimeoutError as error:
        raise OutputError(f"No frames could be added to the video: {error}. Interpolate by the model.") from error
    finally:
        reader.stop()
    return found
