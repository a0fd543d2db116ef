"""Adds frames between those of a video with ffmpeg's motion interpolation."""

import subprocess

import torch
from torch import Tensor

from .encoder import Feeder
from .ffmpeg import OutputError, another_ffmpeg, at_work, find_ffmpeg
from .source import FrameReader

FEWEST = 2
"""Number of frames between which there is something."""


def interpolate_motion(frames: Tensor, factor: int) -> Tensor:
    """Return RGB bytes [(f - 1) factor + 1, h, w, 3]: those of a video [f, h, w, 3], and others between each two.

    Raises:
        OutputError: ffmpeg cannot do it.
    """
    count, height, width, _ = frames.shape
    if count < FEWEST or factor == 1:
        return frames
    wanted = (count - 1) * factor + 1
    # The filter leaves out the last frames.
    filters = f"tpad=stop=3:stop_mode=clone,minterpolate=fps={factor}:scd=none"
    raw = ["-f", "rawvideo", "-pix_fmt", "rgb24"]
    command = [find_ffmpeg(), "-v", "error", *raw, "-s", f"{width}x{height}", "-r", "1", "-i", "-"]
    command += ["-vf", filters, "-frames:v", str(wanted), *raw, "-"]
    with at_work(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdin and process.stdout
        feeder, reader = Feeder(process.stdin, frames), FrameReader(process.stdout, height * width * 3)
        feeder.start()
        reader.start()
        try:
            found = [torch.frombuffer(pixels, dtype=torch.uint8).view(height, width, 3) for pixels in reader.frames()]
        finally:
            reader.stop()
    if len(found) != wanted:
        raise OutputError(f"ffmpeg could not add frames to the video. {another_ffmpeg(find_ffmpeg())}")
    mixed = torch.stack(found)
    mixed[::factor] = frames
    return mixed
