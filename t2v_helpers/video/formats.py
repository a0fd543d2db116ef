"""What a video can be saved as. A format is an entry here and nothing more."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from .metadata import tag_gif, tag_png, tag_webp

Tag = Callable[[bytes, str], bytes]


class Format(NamedTuple):
    """How a video is written, and how a browser shows it.

    Args:
        name: As people choose it.
        suffix: Of its file; no other format has it. Empty for a folder.
        muxer: ffmpeg's. Named, for a path with %d would else be taken for that of a series of pictures.
        video: ffmpeg's arguments for the pictures.
        audio: Those for the sound; without them it is silent.
        media_type: What browsers call the file; empty for a folder.
        tag: Puts infotext into the file's bytes, where ffmpeg cannot.
        is_folder: Whether it is a folder of pictures.
    """

    name: str
    suffix: str
    muxer: str
    video: tuple[str, ...]
    audio: tuple[str, ...] = ()
    media_type: str = ""
    tag: Tag | None = None
    is_folder: bool = False

    def partial(self, path: Path) -> Path:
        """Return where a file of that path is written until it is complete."""
        return path.with_name(f"{path.name}.partial{self.suffix}")


_H264 = ("-c:v", "libx264", "-pix_fmt", "yuv420p", "-preset", "slow", "-crf", "17")
_PALETTE = "split[a][b];[a]palettegen=stats_mode=diff[p];[b][p]paletteuse=dither=sierra2_4a"
FORMATS = {
    entry.name: entry
    for entry in (
        Format(
            name="MP4",
            suffix=".mp4",
            muxer="mp4",
            video=(*_H264, "-movflags", "+faststart"),
            audio=("-c:a", "aac", "-b:a", "192k"),
            media_type="video/mp4",
        ),
        Format(
            name="GIF",
            suffix=".gif",
            muxer="gif",
            video=("-vf", _PALETTE, "-loop", "0"),
            media_type="image/gif",
            tag=tag_gif,
        ),
        Format(
            name="WebP",
            suffix=".webp",
            muxer="webp",
            video=("-c:v", "libwebp_anim", "-quality", "90", "-compression_level", "4", "-loop", "0"),
            media_type="image/webp",
            tag=tag_webp,
        ),
        Format(
            name="WebM",
            suffix=".webm",
            muxer="webm",
            video=("-c:v", "libvpx-vp9", "-pix_fmt", "yuv420p", "-crf", "20", "-b:v", "0", "-row-mt", "1"),
            audio=("-c:a", "libopus", "-b:a", "128k"),
            media_type="video/webm",
        ),
        Format(
            name="PNG frames",
            suffix="",
            muxer="image2",
            video=("-c:v", "png", "-start_number", "0"),
            tag=tag_png,
            is_folder=True,
        ),
    )
}
DEFAULT_FORMAT = "MP4"
MEDIA_TYPES = {entry.suffix: entry.media_type for entry in FORMATS.values() if entry.media_type} | {".png": "image/png"}
"""What files of ours are called, by suffix. Python does not know all of them, and on Windows believes the registry."""


def format_names() -> list[str]:
    """Every format's name, as people choose it."""
    return list(FORMATS)
