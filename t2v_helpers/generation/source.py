"""Reads the files that a request names as its source, and adapts the request to what they hold."""

import hashlib
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor

from ...modelscope.conditioning.images import hold_images
from ...modelscope.conditioning.source import FREE, HELD, Source
from ...modelscope.errors import RequestError
from ..infotext import HASH_KEY, IMAGES_KEY, MASK_KEY, SOURCE_KEY
from ..request import FASTEST, ITS_OWN, KEPT, MAKE_THEM, MOST_FRAMES, SLOWEST, GenerationRequest
from ..video.pictures import read_mask, read_picture, soften
from ..video.source import Piece, Shape, examine, read_piece
from ..video.write import NO_SOUND, Sound, has_sound

HASH_DIGITS = 10
"""Number of digits of a file's SHA-256 in an infotext, as many as the WebUI writes of a model's."""
WATERMARK = (0.1, 0.38, 0.9, 0.64)
"""Left, top, right and bottom of the stock watermark that the base model learnt, as shares of a frame."""
SOFTNESS = 0.015
"""How far the edges of that place are blurred, as a share of the height."""
LAST = -1
"""The last frame, as a person may name it."""


@dataclass(frozen=True)
class Reading:
    """What was read for a request.

    Args:
        request: The request, adapted to the source.
        source: The source's frames, if there is a source.
        sound: The sound that is written with the video.
        total: Number of frames to make of a source video; more than one clip's are made in several.
        names: Entries for an infotext that say what the source was.
        notes: What a person should know about the adaptation.
    """

    request: GenerationRequest
    source: Source | None = None
    sound: Sound = NO_SOUND
    total: int = 0
    names: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def read_source(request: GenerationRequest) -> Reading:
    """Read what a video is made from, if anything. Raises RequestError for files that cannot be used."""
    reading = Reading(request, sound=Sound(request.soundtrack))
    if request.source:
        reading = _read_video(request, Path(request.source))
    if request.image:
        reading = _add_images(reading)
    if request.mask or request.mask_box:
        reading = _add_mask(reading)
    return reading


def _read_video(request: GenerationRequest, path: Path) -> Reading:
    notes: list[str] = []
    fps = _choose_rate(request, path, notes)
    total = round(request.source_length * fps)
    wanted = min(request.frames, total or request.frames)
    source = read_clip(request, fps, 0, wanted)
    count = len(source.order)
    if count < wanted:
        notes.append(f"The source has only {count} frames from there on, so the video has {count}, too.")
    if total > count:
        total = _check_length(request, path, fps, total)
    sound = _choose_sound(request, path, notes)
    names = {SOURCE_KEY: path.name, HASH_KEY: hash_file(path)}
    return Reading(replace(request, frames=count, fps=fps), source, sound, total, names, tuple(notes))


def read_clip(request: GenerationRequest, fps: float, first: int, count: int) -> Source:
    """Read some frames of the request's source video, at its start and this rate. Raises RequestError.

    first: the number of the first one, counted from the start.
    """
    piece = Piece(request.source_start + first / fps, fps, count)
    frames = read_piece(Path(request.source), piece, _shape(request))
    return Source(frames, tuple(range(len(frames))), (FREE,) * len(frames), starts=True)


def _check_length(request: GenerationRequest, path: Path, fps: float, total: int) -> int:
    """Return how many frames can be made of a source, `total` at most. Raises RequestError if they are too many."""
    seconds = examine(path).seconds
    if seconds is not None:
        total = min(total, int((seconds - request.source_start) * fps))
    if total > MOST_FRAMES and request.long_videos != MAKE_THEM:
        raise RequestError(
            f"{total:,} frames would be made of the source, which takes long. Choose a shorter length under Source, or "
            f"{MAKE_THEM!r} for videos of more than {MOST_FRAMES:,} frames."
        )
    return total


def _shape(request: GenerationRequest) -> Shape:
    return Shape(request.width, request.height, request.resize_mode)


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


def _add_images(reading: Reading) -> Reading:
    """Return a reading with the request's images as frames: in the source video, or as a source of their own."""
    request, before = reading.request, reading.source
    named = _parse_images(request)
    pictures = torch.stack([read_picture(path, _shape(request)) for path in named.values()])
    places = tuple(named)
    if before is None:
        weights, reach = request.hold_weights, request.hold_frames or request.frames
        source = hold_images(pictures, places, request.frames, weights, reach, request.seed)
    else:
        source = _put_images(before, places, pictures)
    texts = [f"{place}={path.name} ({hash_file(path)})" for place, path in named.items()]
    return replace(reading, source=source, names=reading.names | {IMAGES_KEY: "; ".join(texts)})


def _parse_images(request: GenerationRequest) -> dict[int, Path]:
    """Return the request's images by frame, in the order of frames. Raises RequestError."""
    named: dict[int, Path] = {}
    for text in request.image:
        number, equals, name = text.partition("=")
        if not equals or not number.strip().lstrip("-").isdecimal() or not name.strip():
            raise RequestError(f"The image {text!r} has to be written as FRAME=FILE, for instance 0=first.png.")
        frame = int(number)
        place = request.frames - 1 if frame == LAST else frame
        if not 0 <= place < request.frames:
            raise RequestError(
                f"The image {text!r} is for frame {frame}, but the video's frames are 0 to {request.frames - 1}."
            )
        if place in named:
            raise RequestError(f"Two images are for frame {place}. Remove one of them.")
        named[place] = Path(name.strip())
    return dict(sorted(named.items()))


def _put_images(video: Source, places: tuple[int, ...], pictures: Tensor) -> Source:
    """Return a source video in which pictures are held in place of some frames."""
    frames, until = video.frames.clone(), list(video.until)
    for place, picture in zip(places, pictures, strict=True):
        frames[place], until[place] = picture, HELD
    return replace(video, frames=frames, until=tuple(until))


def _add_mask(reading: Reading) -> Reading:
    """Return a reading whose source is held outside a mask."""
    request, source = reading.request, reading.source
    if source is None:
        raise RequestError("A mask needs a source: give a video, or an image as a frame, that it applies to.")
    new = _read_mask(request)
    if not bool((new > 0).any()):
        raise RequestError("The mask is all black, so nothing would be new. Paint white what is to change.")
    names = {MASK_KEY: f"{Path(request.mask).name} ({hash_file(Path(request.mask))})"} if request.mask else {}
    held = replace(source, until=(HELD,) * len(source.order), new=new)
    notes = () if bool((new < 1).any()) else ("The mask is all white, so it keeps nothing of the source.",)
    return replace(reading, source=held, names=reading.names | names, notes=(*reading.notes, *notes))


def _read_mask(request: GenerationRequest) -> Tensor:
    """Return the request's mask, [height, width] of 0..1."""
    if request.mask:
        return read_mask(Path(request.mask), _shape(request), request.mask_softness)
    new = torch.zeros(request.height, request.width)
    left, top, width, height = _parse_box(request.mask_box)
    new[top : top + height, left : left + width] = 1
    return soften(new, request.mask_softness)


def _parse_box(text: str) -> list[int]:
    numbers = [part.strip() for part in text.split(",")]
    if len(numbers) != len(("left", "top", "width", "height")) or not all(part.isdecimal() for part in numbers):
        raise RequestError(f"The box {text!r} has to be four numbers of pixels: left, top, width, height.")
    return [int(number) for number in numbers]


def place_of_watermark(width: int, height: int) -> Tensor:
    """Return a mask [height, width] of 0..1 over the band in the middle where the base model likes to write."""
    left, top, right, bottom = WATERMARK
    new = torch.zeros(height, width)
    new[round(top * height) : round(bottom * height), round(left * width) : round(right * width)] = 1
    return soften(new, round(SOFTNESS * height))


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
