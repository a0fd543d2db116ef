"""Reads the files that a request names as its source, and adapts the request to what they hold."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor

from ...modelscope.conditioning.images import hold_images
from ...modelscope.conditioning.source import FREE, HELD, Source
from ...modelscope.errors import RequestError
from ...modelscope.files import hash_file
from ...modelscope.request import MULTIPLE
from ...modelscope.units import format_count
from ..infotext import HASH_KEY, IMAGES_KEY, MASK_KEY, SOURCE_KEY
from ..request import FASTEST, ITS_OWN, KEPT, MAKE_THEM, MOST_FRAMES, SLOWEST, GenerationRequest
from ..signals import check
from ..video.pictures import fit_inside, measure_picture, read_mask, read_picture, soften
from ..video.source import FIT, About, Piece, Shape, examine, read_frames, read_piece
from ..video.write import NO_SOUND, Sound, has_sound

HASH_DIGITS = 10
"""Number of digits of a file's SHA-256 in an infotext, as many as the WebUI writes of a model's."""
LAST = -1
"""The last frame, as a person may name it."""
BORDER = "border"
"""In place of a box: the bars that fitting adds."""
_IMAGE = re.compile(r"\s*(-1|\d{1,6})\s*=\s*(.*\S)\s*", re.DOTALL)
_BOX = re.compile(r"\s*(\d{1,6})\s*,\s*(\d{1,6})\s*,\s*(\d{1,6})\s*,\s*(\d{1,6})\s*")


@dataclass
class Reading:
    """What was read for a request.

    Args:
        request: The request, adapted to the source.
        sound: The sound that is written with the video.
        about: What is known of a source video.
        frames: The first frames of a source video, or all of one that is kept: RGB bytes [n, height, width, 3].
        pictures: Pictures by the frame that each is: RGB bytes [height, width, 3].
        size: The source's own width and height: those of the video, or else of the first picture.
        new: How much of each pixel is new, 0..1: [1, height, width]; None without a mask.
        total: Number of frames to make of a source video; more than one clip's are made in several.
        names: Entries for an infotext that say what the source was.
        notes: What a person should know about the adaptation.
        latents: The latents of the first clip's source frames, once they are encoded: all videos of a batch use them.
    """

    request: GenerationRequest
    sound: Sound = NO_SOUND
    about: About | None = None
    frames: Tensor | None = None
    pictures: Mapping[int, Tensor] = field(default_factory=dict)
    size: tuple[int, int] | None = None
    new: Tensor | None = None
    total: int = 0
    names: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    latents: Tensor | None = None

    def first_source(self, seed: int) -> Source | None:
        """Return the source of the first clip of a video with this seed, if there is a source."""
        if self.frames is not None:
            return replace(self._make_source(self.frames, 0), latents=self.latents)
        if not self.pictures:
            return None
        request, pictures = self.request, torch.stack(list(self.pictures.values()))
        reach = request.hold_frames or request.frames
        source = hold_images(pictures, tuple(self.pictures), request.frames, request.hold_weights, reach, seed)
        return self._mask(replace(source, latents=self.latents))

    def later_source(self, first: int, count: int) -> Source | None:
        """Read the source of a later clip of a long source; None if the video has ended. Raises RequestError.

        Args:
            first: The number of its first frame, counted from the video's start.
            count: How many frames it should have; it has fewer if the video ends before.
        """
        request, path = self.request, Path(self.request.source)
        piece = Piece(request.source_start + first / request.fps, request.fps, count)
        assert self.about
        frames = read_frames(path, piece, _shape(request), self.about)
        return self._make_source(torch.stack(frames), first) if frames else None

    def _make_source(self, frames: Tensor, first: int) -> Source:
        """Return frames of the source video as a source, with the pictures that take the place of some of them."""
        frames, until = frames.clone(), [FREE] * len(frames)
        for place, picture in self.pictures.items():
            if first <= place < first + len(frames):
                frames[place - first], until[place - first] = picture, HELD
        return self._mask(Source(frames, tuple(range(len(frames))), tuple(until), starts=True))

    def _mask(self, source: Source) -> Source:
        """Return a source that is held outside the mask, if there is one."""
        if self.new is None:
            return source
        return replace(source, until=(HELD,) * len(source.order), new=self.new)


def read_source(request: GenerationRequest) -> Reading:
    """Read what a video is made from, if anything. Raises RequestError for files that cannot be used."""
    reading = Reading(request, Sound(request.soundtrack))
    if request.source:
        path = Path(request.source)
        reading.about = about = examine(path)
        reading.size = about.width, about.height
        reading.names = {SOURCE_KEY: path.name, HASH_KEY: _hash(path)}
        read = _keep_video if request.keeps_source else _read_video
        read(reading, path, about)
    if request.image:
        _add_images(reading)
    if request.mask or request.mask_box:
        _add_mask(reading)
    return reading


def _read_video(reading: Reading, path: Path, about: About) -> None:
    """Read the frames of the first clip."""
    request = reading.request
    fps = _choose_rate(request, about, reading.notes) if request.source_rate == ITS_OWN else request.fps
    wanted = request.frames
    if request.source_length:
        reading.total = _count_frames(request, about, fps)
        wanted = min(wanted, reading.total)
    reading.frames = read_piece(path, Piece(request.source_start, fps, wanted), _shape(request), about)
    count = len(reading.frames)
    if count < wanted:
        reading.notes.append(
            f"The source has only {format_count(count, 'frame')} from there on, so the video has {count}, too."
        )
    reading.sound = _choose_sound(request, path, reading.notes)
    reading.request = replace(request, frames=count, fps=fps)


def _keep_video(reading: Reading, path: Path, about: About) -> None:
    """Read all of the source in its own size and rate. The request's frames stay the length of a clip added to it."""
    request = reading.request
    if request.image or request.mask or request.mask_box:
        raise RequestError("Images and masks have no effect on a source that is kept. Choose to change it instead.")
    width, height = (side // MULTIPLE * MULTIPLE for side in (about.width, about.height))
    fps = _choose_rate(request, about, reading.notes)
    # Raises RequestError if the size is too large or too small.
    reading.request = request = replace(request, width=width, height=height, fps=fps)
    most = _count_frames(request, about, fps)
    reading.frames = read_piece(path, Piece(request.source_start, fps, most), _shape(request), about)
    reading.sound = _choose_sound(request, path, reading.notes)


def _shape(request: GenerationRequest) -> Shape:
    return Shape(request.width, request.height, request.resize_mode)


def _choose_rate(request: GenerationRequest, about: About, notes: list[str]) -> float:
    """Return the source's own rate, as far as a video can have it."""
    if about.rate is None:
        notes.append(f"The source does not state its frame rate: {request.fps:g} frames per second are taken.")
        return request.fps
    usable = min(max(about.rate, SLOWEST), FASTEST)
    if usable != about.rate:
        notes.append(f"The source has {about.rate:g} frames per second; {usable:g} are taken.")
    return usable


def _count_frames(request: GenerationRequest, about: About, fps: float) -> int:
    """Return how many frames the chosen length has at most. Raises RequestError if they are too many."""
    left = about.seconds - request.source_start if about.seconds is not None else None
    lengths = [length for length in (request.source_length or None, left) if length is not None]
    total = max(1, round(min(lengths) * fps)) if lengths else MOST_FRAMES
    if total > MOST_FRAMES and request.long_videos != MAKE_THEM:
        raise RequestError(
            f"{total:,} frames of the source would be used, which takes long. Choose a shorter length under Source, or "
            f"{MAKE_THEM!r} for long sources."
        )
    return total


def _choose_sound(request: GenerationRequest, path: Path, notes: list[str]) -> Sound:
    if request.soundtrack or request.source_sound != KEPT:
        return Sound(request.soundtrack)
    if has_sound(path):
        return Sound(str(path), request.source_start)
    notes.append(f"The source {path.name!r} has no sound that could be kept.")
    return NO_SOUND


def _add_images(reading: Reading) -> None:
    """Read the request's images."""
    named = _parse_images(reading.request.image, reading.total or reading.request.frames)
    reading.pictures = {place: read_picture(path, _shape(reading.request)) for place, path in named.items()}
    reading.size = reading.size or measure_picture(next(iter(named.values())))
    texts = [f"{place}={path.name} ({_hash(path)})" for place, path in named.items()]
    reading.names[IMAGES_KEY] = "; ".join(texts)


def _parse_images(images: tuple[str, ...], frames: int) -> dict[int, Path]:
    """Return images by frame, in the order of frames. frames: number of the video's. Raises RequestError."""
    named: dict[int, Path] = {}
    for text in images:
        parts = _IMAGE.fullmatch(text)
        if not parts:
            raise RequestError(f"The image {text[:300]!r} has to be written as FRAME=FILE, for instance 0=first.png.")
        frame, path = int(parts[1]), Path(parts[2])
        place = frames - 1 if frame == LAST else frame
        if place >= frames:
            raise RequestError(f"{path.name!r} is for frame {frame}, but the video's frames are 0 to {frames - 1}.")
        if place in named:
            raise RequestError(f"Two images are for frame {place}. Remove one of them.")
        named[place] = path
    return dict(sorted(named.items()))


def _add_mask(reading: Reading) -> None:
    """Read the request's mask. Raises RequestError if there is nothing that it applies to."""
    request = reading.request
    if reading.frames is None and not reading.pictures:
        raise RequestError("A mask needs a source: give a video, or an image as a frame, that it applies to.")
    if request.mask:
        path = Path(request.mask)
        reading.new = read_mask(path, _shape(request), request.mask_softness)[None]
        reading.names[MASK_KEY] = f"{path.name} ({_hash(path)})"
    elif request.mask_box.strip().lower() == BORDER:
        reading.new = _draw_border(reading)[None]
    else:
        reading.new = _draw_box(request)[None]
    if not bool((reading.new > 0).any()):
        raise RequestError("The mask is all black, so nothing would be new. Paint white what is to change.")
    if bool((reading.new == 1).all()):
        reading.notes.append("The mask is all white, so it keeps nothing of the source.")


def _draw_box(request: GenerationRequest) -> Tensor:
    """Return the request's box as a mask, [height, width] of 0..1."""
    parts = _BOX.fullmatch(request.mask_box)
    if not parts:
        raise RequestError(
            f"The box {request.mask_box[:300]!r} has to be four numbers of pixels: left, top, width, height."
        )
    left, top, width, height = map(int, parts.groups())
    new = torch.zeros(request.height, request.width)
    new[top : top + height, left : left + width] = 1
    if not bool(new.any()):
        raise RequestError(
            f"The box {request.mask_box!r} has nothing inside the picture, which is {request.width} x {request.height}."
        )
    return soften(new, request.mask_softness)


def _draw_border(reading: Reading) -> Tensor:
    """Return the bars that fitting a source into the video adds, as a mask [height, width] of 0..1."""
    request = reading.request
    if request.resize_mode != FIT:
        raise RequestError(f"The border is what the resize mode {FIT!r} adds. Choose that mode, or another box.")
    assert reading.size
    inner = fit_inside(reading.size, (request.width, request.height))
    left, top = (outer // 2 for outer in (request.width - inner[0], request.height - inner[1]))
    new = torch.ones(request.height, request.width)
    new[top : top + inner[1], left : left + inner[0]] = 0
    if not bool(new.any()):
        raise RequestError("The source has the video's shape, so it has no border. Choose another width or height.")
    return soften(new, request.mask_softness)


def _hash(path: Path) -> str:
    """Return the first digits of a file's hash. Raises RequestError if it cannot be read."""
    try:
        return hash_file(path, on_piece=check)[:HASH_DIGITS]
    except OSError as error:
        raise RequestError(f"The source {path.name!r} cannot be read: {error.strerror or error}.") from error
