"""Writes and reads the infotext inside files, in the place where the WebUI has it in each container."""

import io
import re
import struct
import warnings
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from PIL import Image

from ...modelscope.errors import TextToVideoError
from ...modelscope.files import open_file
from .ffmpeg import ask_ffmpeg

PNG_KEY = "parameters"
EXIF_IFD, USER_COMMENT = 0x8769, 0x9286
UNICODE = b"UNICODE\0"
GIF = b"GIF8"
COMMENT = b"\x21\xfe"
LONGEST_COMMENT = 2 << 20
"""Bytes at a GIF's beginning that may hold its comment. The longest infotext that is accepted takes half of it."""
IMAGES = ("PNG", "JPEG", "WEBP")
"""Formats that we and the WebUI write. Pillow knows dozens more, some of which start other programs."""


class UnreadableFile(TextToVideoError):
    """The error for a file that holds no settings, or cannot be read."""


def ffmetadata(text: str) -> str:
    """Return the content of a file for `ffmpeg -f ffmetadata`, with the text as comment."""
    return ";FFMETADATA1\ncomment=" + re.sub(r"([=;#\\\n\r])", r"\\\1", text.replace("\0", "")) + "\n"


def tag_png(data: bytes, text: str) -> bytes:
    """Return a PNG with the text in an iTXt chunk after its header."""
    chunk = b"iTXt" + PNG_KEY.encode() + b"\0\0\0\0\0" + text.encode()
    header = 8 + 25
    return (
        data[:header] + struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk)) + data[header:]
    )


def tag_gif(data: bytes, text: str) -> bytes:
    """Return a GIF with the text in a comment extension before its first frame."""
    start = _gif_header(data)
    raw = text.encode()
    blocks = (raw[at : at + 255] for at in range(0, len(raw), 255))
    comment = COMMENT + b"".join(bytes([len(block)]) + block for block in blocks) + b"\0"
    return data[:start] + comment + data[start:]


def _gif_header(data: bytes) -> int:
    """Return the number of bytes before a GIF's first block: the screen's size and its table of colours."""
    flags = data[10]
    return 13 + (3 * 2 ** ((flags & 7) + 1) if flags & 0x80 else 0)


def tag_webp(data: bytes, text: str) -> bytes:
    """Return a WebP with the text as its EXIF user comment."""
    exif = Image.Exif()
    exif[EXIF_IFD] = {USER_COMMENT: UNICODE + text.encode("utf-16-be")}
    tiff = exif.tobytes().removeprefix(b"Exif\0\0")
    head, chunks = _webp_parts(data)
    has_exif = 0x08
    body = b"WEBP" + b"VP8X" + struct.pack("<I", len(head)) + bytes([head[0] | has_exif]) + head[1:] + chunks
    body += b"EXIF" + struct.pack("<I", len(tiff)) + tiff + b"\0" * (len(tiff) % 2)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def _webp_parts(data: bytes) -> tuple[bytes, bytes]:
    """Return the content of the VP8X chunk, which is made up for a still picture, and all other chunks."""
    first = 12
    if data[first : first + 4] == b"VP8X":
        return data[20:30], data[30:]
    with Image.open(io.BytesIO(data), formats=("WEBP",)) as image:
        width, height = (struct.pack("<I", side - 1)[:3] for side in image.size)
    return b"\0\0\0\0" + width + height, data[first:]


def read_tags(path: Path) -> str:
    """Return the infotext inside an image or video file, or a text file's text.

    Raises UnreadableFile if there is none.
    """
    if path.suffix.lower() == ".txt":
        return _from_text(path)
    try:
        text = _from_gif(path) if _is_gif(path) else _from_image(path)
    except Image.DecompressionBombError as error:
        raise UnreadableFile(f"{path.name} has more pixels than any video.") from error
    except (OSError, SyntaxError, ValueError, struct.error):
        text = _from_video(path)
    if not text.strip():
        raise UnreadableFile(
            f"{path.name} contains no settings. They are missing if saving them was turned off, or if another program "
            "has saved the file since."
        )
    return text


def _from_text(path: Path) -> str:
    try:
        with open_file(path) as file:
            text = file.read(LONGEST_COMMENT).decode("utf-8-sig", errors="replace")
    except OSError as error:
        raise UnreadableFile(f"{path.name} cannot be read: {error.strerror or error}.") from error
    return text.replace("\r\n", "\n")


def _from_image(path: Path) -> str:
    with warnings.catch_warnings(), Image.open(path, formats=IMAGES) as image:
        # Pillow's warnings about damage are of no use to the person who dropped the file.
        warnings.simplefilter("ignore")
        # Pillow returns None if the pointer to the EXIF data is damaged.
        comment = (image.getexif().get_ifd(EXIF_IFD) or {}).get(USER_COMMENT, b"")
        if isinstance(comment, bytes) and comment.startswith(UNICODE):
            return comment.removeprefix(UNICODE).decode("utf-16-be", errors="replace")
        found = image.info.get(PNG_KEY) or image.info.get("comment") or ""
    return found.decode(errors="replace") if isinstance(found, bytes) else str(found)


def _is_gif(path: Path) -> bool:
    with open_file(path) as file:
        return file.read(len(GIF)) == GIF


def _from_gif(path: Path) -> str:
    """Return the comments before a GIF's first frame. Pillow needs time that grows with the square of their length."""
    with open_file(path) as file:
        start = io.BytesIO(file.read(LONGEST_COMMENT))
    start.seek(_gif_header(start.read(13).ljust(13, b"\0")))
    comments = []
    while (kind := start.read(2))[:1] == COMMENT[:1]:
        content = b"".join(_gif_blocks(start))
        comments += [content] * (kind == COMMENT)
    return b"\n".join(comments).decode(errors="replace")


def _gif_blocks(file: BinaryIO) -> Iterator[bytes]:
    """Yield the blocks of an extension, up to the empty one that ends it."""
    while size := file.read(1).strip(b"\0"):
        yield file.read(size[0])


def _from_video(path: Path) -> str:
    """Return the comment of a container that ffmpeg can read."""
    try:
        metadata = ask_ffmpeg(path, "-f", "ffmetadata", "-").decode(errors="replace")
    except OSError as error:
        raise UnreadableFile(f"{path.name} is not an image or a video that can be read.") from error
    found = re.search(r"(?mis)^comment=((?:\\.|[^\\\n])*)$", metadata)
    return re.sub(r"(?s)\\(.)", r"\1", found[1]) if found else ""
