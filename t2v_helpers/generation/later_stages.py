"""What the stages after the first clip will make: their requests, and whether they are possible, before a run."""

from dataclasses import fields, replace
from typing import Any, NamedTuple

from ...modelscope.conditioning.extend import count_held
from ...modelscope.conditioning.in_between import count_in_between
from ...modelscope.errors import RequestError
from ...modelscope.request import MULTIPLE
from ..request import BY_MODEL, MOST_FRAMES, OFF, SAME, GenerationRequest
from ..video.source import FEWEST_FRAMES
from .source import Reading

OF_SECOND_PASS = tuple(field.name for field in fields(GenerationRequest) if field.name.startswith("hires"))
_LATER = ("watermark", "extend", "interpolate", "source_length", *OF_SECOND_PASS)


def without_later_stages(request: GenerationRequest) -> GenerationRequest:
    """Return the request of the first clip alone."""
    defaults: dict[str, Any] = {
        field.name: field.default for field in fields(GenerationRequest) if field.name in _LATER
    }
    return replace(request, **defaults)


def count_doublings(request: GenerationRequest) -> int:
    """Return how often the model doubles the frame rate."""
    return request.interpolate.bit_length() - 1 if request.interpolate_by == BY_MODEL else 0


def size_of_second_pass(width: int, height: int, scale: float) -> tuple[int, int]:
    """Return the width and height of a video after enlargement."""
    return round(width * scale / MULTIPLE) * MULTIPLE, round(height * scale / MULTIPLE) * MULTIPLE


def request_second_pass(request: GenerationRequest, frames: int, width: int, height: int) -> GenerationRequest:
    """Return the request for the second pass over a video of this size. Raises RequestError if it is too large."""
    width, height = size_of_second_pass(width, height, request.hires_scale)
    return replace(
        request,
        width=request.hires_width or width,
        height=request.hires_height or height,
        frames=frames,
        strength=request.hires_strength,
        steps=request.hires_steps or request.steps,
        sampler=request.sampler if request.hires_sampler == SAME else request.hires_sampler,
    )


def count_frames(request: GenerationRequest, first: int) -> int:
    """Return how many frames a video has after its extension. first: number of frames before that."""
    return first + request.extend * (request.frames - count_held(request.frames))


class LaterPass(NamedTuple):
    """A pass of the network over the whole video, after the first clip.

    Args:
        name: What it is called in forecasts.
        is_second: Whether the second pass's model makes it.
        request: Its size and steps.
        share: Share of the steps that are done.
    """

    name: str
    is_second: bool
    request: GenerationRequest
    share: float


def list_later_passes(request: GenerationRequest, first: int) -> list[LaterPass]:
    """Return the passes over the whole video. Raises RequestError if one is not possible.

    first: number of frames before the extension.
    """
    count, passes = count_frames(request, first), list[LaterPass]()
    width, height = request.width, request.height
    try:
        if request.watermark:
            marked = replace(request, frames=first)
            passes.append(LaterPass("Watermark removal", is_second=False, request=marked, share=request.watermark))
        if request.hires != OFF:
            second = request_second_pass(request, count, width, height)
            width, height = second.width, second.height
            passes.append(LaterPass("Second pass", is_second=True, request=second, share=second.strength))
    except RequestError as error:
        raise RequestError(f"A second pass over {count} frames is not possible: {error}") from error
    for _ in range(count_doublings(request)):
        count = count_in_between(count)
        if count > MOST_FRAMES:
            raise RequestError(
                f"The model makes frames in between for videos of up to {MOST_FRAMES:,} frames, and this one would "
                f"have {count:,}. Interpolate by motion."
            )
        between = replace(request, frames=count, width=width, height=height)
        passes.append(LaterPass("In between", is_second=False, request=between, share=1.0))
    return passes


def check_later_stages(reading: Reading) -> None:
    """Check that all stages are possible, so that none fails after hours. Raises RequestError."""
    request = reading.request
    kept = reading.frames if request.keeps_source else None
    first = len(kept) if kept is not None else max(reading.total, request.frames)
    if request.frames < FEWEST_FRAMES and (request.extend or reading.total > request.frames):
        raise RequestError(f"A video is continued with clips of at least {FEWEST_FRAMES} frames. Raise Frames.")
    list_later_passes(request, first)
