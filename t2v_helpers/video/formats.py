"""The formats in which a video can be saved. A format needs only an entry here."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from .metadata import tag_gif, tag_png, tag_webp

Tag = Callable[[bytes, str], bytes]


class Format(NamedTuple):
    """A format: how a video is written, and how a browser shows it.

    Args:
        name: The name by which people choose the format.
        suffix: The suffix of its files, which no other format has; empty for a folder.
        muxer: ffmpeg's muxer. Without it, a path with %d would be taken for a series of pictures.
        video: ffmpeg's arguments for the pictures.
        filters: ffmpeg's filters for the pictures, without those for the frame rate.
        fastest: The highest frame rate. Browsers would slow faster files down.
        audio: ffmpeg's arguments for the sound; empty for a silent format.
        media_type: The media type for browsers; empty for a folder.
        tag: Puts an infotext into the file's bytes, if ffmpeg cannot.
        is_folder: Whether the format is a folder of pictures.
    """

    name: str
    suffix: str
    muxer: str
    video: tuple[str, ...]
    filters: str = ""
    fastest: float = math.inf
    audio: tuple[str, ...] = ()
    media_type: str = ""
    tag: Tag | None = None
    is_folder: bool = False

    def count_shown(self, frames: int, fps: float) -> int:
        """Return how many of a video's frames a file of this format has."""
        return frames if fps <= self.fastest else max(1, round(frames / fps * self.fastest))

    def partial(self, path: Path) -> Path:
        """Return the path at which a file is written until it is complete."""
        return path.with_name(f"{path.name}.partial{self.suffix}")


_H264 = ("-c:v", "libx264", "-preset", "slow", "-crf", "17")
_TO_YUV = (
    "scale=out_color_matrix=smpte170m:out_range=tv,format=yuv420p,"
    "setparams=colorspace=smpte170m:color_primaries=bt709:color_trc=bt709:range=tv"
)
_YUV_TAGS = (
    "-colorspace", "smpte170m", "-color_primaries", "bt709", "-color_trc", "bt709", "-color_range", "tv",
)  # fmt: skip
"""How colours are converted. Without these tags, each browser guesses in its own way, from a video's size. Older
versions of ffmpeg take the tags from the arguments, newer ones from the filter."""
_FIFTY = 50.0
"""Browsers treat delays below 20 ms as 100 ms."""
_PALETTE = "split[a][b];[a]palettegen=stats_mode=diff[p];[b][p]paletteuse=dither=sierra2_4a"
FORMATS = {
    entry.name: entry
    for entry in (
        Format(
            name="MP4",
            suffix=".mp4",
            muxer="mp4",
            video=(*_H264, *_YUV_TAGS, "-movflags", "+faststart"),
            filters=_TO_YUV,
            audio=("-c:a", "aac", "-b:a", "192k"),
            media_type="video/mp4",
        ),
        Format(
            name="GIF",
            suffix=".gif",
            muxer="gif",
            video=("-loop", "0"),
            filters=_PALETTE,
            fastest=_FIFTY,
            media_type="image/gif",
            tag=tag_gif,
        ),
        Format(
            name="WebP",
            suffix=".webp",
            muxer="webp",
            video=("-c:v", "libwebp_anim", "-quality", "90", "-compression_level", "4", "-loop", "0"),
            fastest=_FIFTY,
            media_type="image/webp",
            tag=tag_webp,
        ),
        Format(
            name="WebM",
            suffix=".webm",
            muxer="webm",
            video=("-c:v", "libvpx-vp9", "-crf", "20", "-b:v", "0", "-row-mt", "1", *_YUV_TAGS),
            filters=_TO_YUV,
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
"""Media types of our files by suffix. Python does not know all of them, and on Windows trusts the registry."""


def format_names() -> list[str]:
    """Return the names of all formats, as people choose them."""
    return list(FORMATS)
