"""Reads single frames of saved videos."""

import io
from pathlib import Path

from PIL import Image

from .ffmpeg import ask_ffmpeg
from .metadata import UnreadableFile


def read_frame(path: Path, number: int) -> Image.Image:
    """Return frame `number` (from 0) of a video file or of a folder of frames, as RGB. Raises UnreadableFile."""
    try:
        if path.is_dir():
            with Image.open(sorted(path.iterdir())[number], formats=("PNG",)) as image:
                return image.convert("RGB")
        chosen = ("-vf", f"select=eq(n\\,{number})", "-frames:v", "1", "-f", "image2pipe", "-c:v", "png", "-")
        return Image.open(io.BytesIO(ask_ffmpeg(path, *chosen)), formats=("PNG",)).convert("RGB")
    except (OSError, IndexError) as error:
        raise UnreadableFile(f"Frame {number + 1} of {path.name} cannot be read. Has it been moved?") from error
