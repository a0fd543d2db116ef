"""Which plan a run begins with."""

from dataclasses import replace
from typing import NamedTuple

import torch

from ..errors import OutOfMemory, RequestError
from ..model import Model
from ..prompts.encode import chunks
from ..request import VideoRequest
from ..units import format_bytes
from . import float8
from .estimate import TOKENS, Clip, needed
from .plan import BALANCED, LADDER, Plan

RESERVE = 250_000_000
"""Bytes of an accelerator's memory that kernels, fragments and other programs want."""


MAIN_MEMORY_SHARE = 4
"""Main memory is everybody's, and bringing weights part by part costs a CPU, which is slow, a hundredth of a step: a
run that wants more than this part of what is free does it."""


class Limits(NamedTuple):
    """What a choice has to respect.

    free: bytes on the device, None if unknown; budget: bytes that the person allows, if any; forced: the plan that the
    person wants; first: the quickest plan that the host's own settings allow; eight_bits: how weights are to wait.
    """

    free: int | None
    budget: int | None = None
    forced: Plan | None = None
    first: Plan = LADDER[0]
    eight_bits: bool = False

    @property
    def available(self) -> int | None:
        """What there is within the budget."""
        return min((x for x in (self.free, self.budget) if x is not None), default=None)


class Choice(NamedTuple):
    """A plan, what it needs, and what there is (in bytes; None if unknown)."""

    plan: Plan
    needs: int
    available: int | None

    def __str__(self) -> str:
        there = "" if self.available is None else f" of {format_bytes(self.available)} free"
        how = f"plan: {self.plan.name}{', 8 bits' if self.plan.eight_bits else ''}"
        return f"needs about {format_bytes(self.needs)}{there} ({how})"


def choose(model: Model, request: VideoRequest, limits: Limits) -> Choice:
    """The quickest plan that fits. Raises OutOfMemory, which says what would fit, or RequestError."""
    if limits.budget is not None and limits.budget <= 0:
        raise RequestError("The memory budget must be more than 0 GB.")
    if limits.eight_bits and not float8.are_supported(model.place.device):
        raise RequestError(
            "Weights in 8 bits need torch 2.1 or newer and a device that knows float8: turn them off in the settings."
        )
    available = limits.available
    if limits.forced:
        forced = replace(limits.forced, eight_bits=limits.eight_bits)
        return Choice(forced, _needed(model, forced, request), available)
    for plan in _candidates(model, limits):
        needs = _needed(model, plan, request)
        room = _room(plan, limits, model.place.device)
        if room is None or needs <= room:
            return Choice(plan, needs, available)
    raise OutOfMemory(_too_large(model, request, limits))


def _candidates(model: Model, limits: Limits) -> list[Plan]:
    """On a CPU one large batch is no quicker than two small ones; and nothing is known where memory is not."""
    quickest = BALANCED if model.place.device.type == "cpu" or limits.available is None else LADDER[0]
    allowed = LADDER[max(LADDER.index(quickest), LADDER.index(limits.first)) :]
    return [replace(plan, eight_bits=limits.eight_bits) for plan in allowed]


def _room(plan: Plan, limits: Limits, device: torch.device) -> int | None:
    """Bytes that a plan may need on the device; None if unknown."""
    if limits.available is None:
        return None
    if device.type == "cpu" and not plan.streamed and limits.free is not None:
        return min(limits.available, limits.free // MAIN_MEMORY_SHARE)
    return limits.available - _reserve(device)


def _reserve(device: torch.device) -> int:
    return 0 if device.type == "cpu" else RESERVE


def _needed(model: Model, plan: Plan, request: VideoRequest, frames: int | None = None) -> int:
    """frames: if not the request's."""
    scale = model.config.autoencoder.scale
    clip = Clip(frames or request.frames, request.height // scale, request.width // scale)
    tokens = TOKENS * max(len(chunks(prompt)) if prompt else 1 for prompt in (request.prompt, request.negative_prompt))
    return needed(model, plan, clip, tokens=tokens, draft=request.draft > 1)


def _too_large(model: Model, request: VideoRequest, limits: Limits) -> str:
    available, plan = limits.available or 0, replace(LADDER[-1], eight_bits=limits.eight_bits)
    room = available - _reserve(model.place.device)
    size = f"{request.width} x {request.height}"
    least = _needed(model, plan, request) + _reserve(model.place.device)
    fitting = 0
    for bit in reversed(range(request.frames.bit_length())):
        if _needed(model, plan, request, fitting + 2**bit) <= room:
            fitting += 2**bit
    what = (
        f"At most {fitting} frames fit at this size: ask for fewer frames or a smaller size."
        if fitting
        else "Ask for a smaller size, or close other programs."
    )
    return (
        f"{request.frames} frames of {size} need about {format_bytes(least)} at least, and {format_bytes(available)} "
        f"are there. {what}"
    )
