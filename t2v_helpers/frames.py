"""Single frames out of saved videos."""

import io
import subprocess
from pathlib import Path

from PIL import Image

from .ffmpeg import OUT_OF_REACH_OF_CTRL_C, find_ffmpeg
from .tags import LONGEST_WAIT, UnreadableFile


def read_frame(path: Path, number: int) -> Image.Image:
    """Frame `number` (from 0) of a video file or of a folder of frames, as RGB. Raises UnreadableFile."""
    try:
        if path.is_dir():
            with Image.open(sorted(path.iterdir())[number]) as image:
                return image.convert("RGB")
        return Image.open(io.BytesIO(_decoded(path, number))).convert("RGB")
    except (OSError, IndexError, subprocess.SubprocessError) as error:
        raise UnreadableFile(f"Frame {number + 1} of {path.name} cannot be read. Has it been moved?") from error


def _decoded(path: Path, number: int) -> bytes:
    chosen = ["-vf", f"select=eq(n\\,{number})", "-frames:v", "1", "-f", "image2pipe", "-c:v", "png", "-"]
    command = [find_ffmpeg(), "-v", "error", "-i", f"file:{path.absolute()}", *chosen]
    result = subprocess.run(
        command,
        check=True,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=LONGEST_WAIT,
        **OUT_OF_REACH_OF_CTRL_C,
    )
    return result.stdout
