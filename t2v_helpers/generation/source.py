"""Reads the files that a request names as its source, and adapts the request to what they hold."""

import hashlib
from dataclasses import dataclass, field, replace
from pathlib import Path

from ...modelscope.conditioning.source import FREE, Source
from ...modelscope.errors import RequestError
from ..request import FASTEST, ITS_OWN, KEPT, SLOWEST, GenerationRequest
from ..video.source import Piece, Shape, examine, read_piece
from ..video.write import NO_SOUND, Sound, has_sound

HASH_DIGITS = 10
"""Number of digits of a file's SHA-256 in an infotext, as many as the WebUI writes of a model's."""


@dataclass(frozen=True)
class Reading:
    """What was read for a request.

    Args:
        request: The request, adapted to the source.
        source: The source's frames, if there is a source.
        sound: The sound that is written with the video.
        names: Entries for an infotext that say what the source was.
        notes: What a person should know about the adaptation.
    """

    request: GenerationRequest
    source: Source | None = None
    sound: Sound = NO_SOUND
    names: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def read_source(request: GenerationRequest) -> Reading:
    """Read what a video is made from, if anything. Raises RequestError for files that cannot be used."""
    if request.source:
        return _read_video(request, Path(request.source))
    return Reading(request, sound=Sound(request.soundtrack))


def _read_video(request: GenerationRequest, path: Path) -> Reading:
    notes: list[str] = []
    fps = _choose_rate(request, path, notes)
    shape = Shape(request.width, request.height, request.resize_mode)
    frames = read_piece(path, Piece(request.source_start, fps, request.frames), shape)
    count = len(frames)
    if count < request.frames:
        notes.append(f"The source has only {count} frames from there on, so the video has {count}, too.")
    source = Source(frames, tuple(range(count)), (FREE,) * count, starts=True)
    sound = _choose_sound(request, path, notes)
    names = {"Source": path.name, "Source hash": hash_file(path)}
    return Reading(replace(request, frames=count, fps=fps), source, sound, names, tuple(notes))


def _choose_rate(request: GenerationRequest, path: Path, notes: list[str]) -> float:
    """Return the rate at which frames are taken from the source, which is the video's FPS, too."""
    if request.source_rate != ITS_OWN:
        return request.fps
    rate = examine(path).rate
    if rate is None:
        notes.append(f"The source does not state its frame rate: {request.fps:g} frames per second are taken.")
        return request.fps
    usable = min(max(rate, SLOWEST), FASTEST)
    if usable != rate:
        notes.append(f"The source has {rate:g} frames per second; {usable:g} are taken.")
    return usable


def _choose_sound(request: GenerationRequest, path: Path, notes: list[str]) -> Sound:
    if request.soundtrack or request.source_sound != KEPT:
        return Sound(request.soundtrack)
    if has_sound(path):
        return Sound(str(path), request.source_start)
    notes.append(f"The source {path.name!r} has no sound that could be kept.")
    return NO_SOUND


def hash_file(path: Path) -> str:
    """Return the first digits of a file's SHA-256. Raises RequestError if it cannot be read."""
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    except OSError as error:
        raise RequestError(f"The source {path.name!r} cannot be read: {error.strerror or error}.") from error
    return digest.hexdigest()[:HASH_DIGITS]
