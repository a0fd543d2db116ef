"""Chooses the plan that a run begins with."""

from dataclasses import dataclass, replace
from typing import NamedTuple

import torch

from ..errors import OutOfMemory, RequestError
from ..model import Model
from ..prompts.tokens import split_into_chunks
from ..request import VideoRequest
from ..units import format_bytes, format_count
from . import float8
from .batching import is_quicker_batched
from .estimate import TOKENS, Clip, estimate_bytes
from .lora_deltas import NO_LORAS, LoraDeltas
from .plan import BALANCED, LADDER, Plan

RESERVE = 150_000_000
"""Bytes of an accelerator's memory that are left for fragmentation and for other programs."""


MAIN_MEMORY_SHARE = 4
"""Divisor of the free memory. On a CPU, weights are streamed if a run needs more than this fraction: other programs
want memory, too, and streaming costs a CPU about 1 % of a step."""


class Limits(NamedTuple):
    """Constraints on the choice of a plan.

    Args:
        free: Free bytes on the device; None if unknown.
        budget: Bytes that the person allows, if they set a limit.
        forced: The plan that the person chose, if any.
        first: The quickest plan that the host's own settings allow.
        eight_bits: Whether to store weights in 8 bits.
    """

    free: int | None
    budget: int | None = None
    forced: Plan | None = None
    first: Plan = LADDER[0]
    eight_bits: bool = False

    @property
    def available(self) -> int | None:
        """Free bytes within the budget; None if unknown."""
        return min((x for x in (self.free, self.budget) if x is not None), default=None)


class Choice(NamedTuple):
    """A plan, the bytes that it needs, and the bytes that are available (None if unknown)."""

    plan: Plan
    needs: int
    available: int | None

    def __str__(self) -> str:
        there = "" if self.available is None else f" of {format_bytes(self.available)} free"
        how = f"plan: {self.plan.name}{', 8 bits' if self.plan.eight_bits else ''}"
        return f"needs about {format_bytes(self.needs)}{there} ({how})"


def choose_plan(model: Model, request: VideoRequest, limits: Limits, loras: LoraDeltas = NO_LORAS) -> Choice:
    """Return the quickest plan that fits; this changes nothing.

    Args:
        model: The model; only the shapes of its networks are used.
        request: The parameters of the video.
        limits: The constraints.
        loras: What is added to the weights.

    Raises:
        OutOfMemory: No plan fits; the text says how many frames would fit.
        RequestError: The limits make no sense.
    """
    prompts = (request.prompt, request.negative_prompt)
    tokens = TOKENS * max(len(split_into_chunks(prompt)) if prompt else 1 for prompt in prompts)
    return _Chooser(model, request, limits, loras, tokens).choose()


@dataclass(frozen=True)
class _Chooser:
    """Comparison of plans for one request. tokens: number of tokens of the longer prompt, with padding."""

    model: Model
    request: VideoRequest
    limits: Limits
    loras: LoraDeltas
    tokens: int

    def choose(self) -> Choice:
        limits = self.limits
        self._check_limits()
        if limits.forced:
            plan = self._plan(limits.forced)
            return Choice(plan, self._needed(plan), limits.available)
        for plan in self._candidates():
            needs, room = self._needed(plan), self._room(plan)
            if room is None or needs <= room:
                return Choice(plan, needs, limits.available)
        raise OutOfMemory(self._too_large())

    def _check_limits(self) -> None:
        limits = self.limits
        if limits.budget is not None and limits.budget <= 0:
            raise RequestError("The memory budget must be more than 0 GB.")
        if limits.eight_bits and not float8.is_supported(self._device):
            raise RequestError(
                "Weights in 8 bits need torch 2.1 or newer and a device that supports float8. Turn them off in the "
                "settings."
            )

    @property
    def _device(self) -> torch.device:
        return self.model.place.device

    def _plan(self, plan: Plan) -> Plan:
        return replace(plan, eight_bits=self.limits.eight_bits)

    def _candidates(self) -> list[Plan]:
        """Return the plans to try, the quickest first."""
        # A card gains from one batch at every size (docs/benchmark.md).
        gains = self._device.type != "cpu" or is_quicker_batched(self.model.unet, self._clip())
        # With unknown memory, a large batch may not fit.
        quickest = LADDER[0] if gains and self.limits.available is not None else BALANCED
        first = max(LADDER.index(quickest), LADDER.index(self.limits.first))
        return [self._plan(plan) for plan in LADDER[first:]]

    def _room(self, plan: Plan) -> int | None:
        """Return how many bytes a plan may use on the device; None if unknown."""
        available, free = self.limits.available, self.limits.free
        if available is None:
            return None
        if self._device.type == "cpu" and not plan.streamed and free is not None:
            return min(available, free // MAIN_MEMORY_SHARE)
        return available - self._reserve

    @property
    def _reserve(self) -> int:
        return 0 if self._device.type == "cpu" else RESERVE

    def _needed(self, plan: Plan, frames: int | None = None) -> int:
        """Return how many bytes the plan needs. frames: the number of frames, if not the request's."""
        draft = self.request.draft > 1
        return estimate_bytes(self.model, plan, self._clip(frames), tokens=self.tokens, draft=draft, loras=self.loras)

    def _clip(self, frames: int | None = None) -> Clip:
        """Return the size of the latents. frames: how many, if not the request's."""
        request, scale = self.request, self.model.config.autoencoder.scale
        return Clip(frames or request.frames, request.height // scale, request.width // scale)

    def _too_large(self) -> str:
        """Return an error message that says how many frames would fit."""
        available, request = self.limits.available or 0, self.request
        smallest, fitting = self._plan(LADDER[-1]), 0
        for bit in reversed(range(request.frames.bit_length())):
            if self._needed(smallest, fitting + 2**bit) <= available - self._reserve:
                fitting += 2**bit
        remedy = (
            f"There is room for {format_count(fitting, 'frame')} of this size: ask for fewer frames or a smaller size."
            if fitting
            else "Ask for a smaller size, or close other programs."
        )
        least = format_bytes(self._needed(smallest) + self._reserve)
        asked = f"{format_count(request.frames, 'frame')} of {request.width} x {request.height}"
        return (
            f"At least about {least} is needed for {asked}, but only {format_bytes(available)} is available. {remedy}"
        )
