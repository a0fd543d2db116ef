"""Runs the autoencoder under a plan: frames of a source become latents, and latents become frames."""

import functools
from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor

from .device import Place
from .errors import OutOfMemory
from .memory.estimate import Clip, frames_at_once
from .memory.plan import Plan
from .memory.plan_runner import PlanRunner, Task
from .memory.residency import Residency
from .network.autoencoder import Autoencoder, from_uint8, to_uint8
from .network.tiny_decoder import TinyDecoder
from .progress import Step
from .run_options import DEFAULTS, RunOptions

ENCODING, DECODING = "encoding the source", "decoding"
"""What is done, as errors and notes name it."""
REMEDY = "Ask for a smaller size, or close other programs."
Result = TypeVar("Result")


@torch.no_grad()
def encode_frames(residency: Residency, frames: Tensor, options: RunOptions = DEFAULTS) -> Tensor:
    """Turn RGB bytes [f, 8 h, 8 w, 3] into latents [1, c, f, h, w] in float32 on the CPU, one frame at a time.

    Computes at the model's `vae_place`, or on the CPU if memory does not suffice there. The errors are those of
    `generate`.
    """
    if not options.can_use_kept_weights:
        residency.release()
    return _with_fallback(residency, options, ENCODING, lambda at: _encode_at(at, residency, frames, options))


def _encode_at(at: Place, residency: Residency, frames: Tensor, options: RunOptions) -> Tensor:
    autoencoder, found = residency.model.autoencoder, []
    task = Task(autoencoder.encoding_part(), ENCODING, remedy=REMEDY)
    with PlanRunner(residency, task, options.plan, at, options.notify) as vae:
        for done, frame in enumerate(frames.split(1), 1):
            found.append(vae(functools.partial(_encode_some, autoencoder, frame)))
            options.on_step(Step("source", done, len(frames)))
    return torch.cat(found).transpose(0, 1)[None].contiguous()


def _encode_some(autoencoder: Autoencoder, frames: Tensor, plan: Plan, place: Place) -> Tensor:
    """Return the latents [n, c, h, w] of RGB bytes [n, 8 h, 8 w, 3], in float32 on the CPU."""
    return autoencoder.frames_to_latents(from_uint8(frames).to(*place), plan.budget_on(place.device)).float().cpu()


@torch.no_grad()
def decode(residency: Residency, latents: Tensor, options: RunOptions = DEFAULTS) -> Tensor:
    """Turn latents [1, c, f, h, w] into RGB bytes [f, 8 h, 8 w, 3] on the CPU, as many at a time as the plan allows.

    Computes at the model's `vae_place`, or on the CPU if memory does not suffice there. The errors are those of
    `generate`.
    """
    return _with_fallback(residency, options, DECODING, lambda at: _decode_at(at, residency, latents, options))


def _with_fallback(residency: Residency, options: RunOptions, doing: str, work: Callable[[Place], Result]) -> Result:
    vae_place = residency.model.vae_place
    try:
        return work(vae_place)
    except OutOfMemory:
        if vae_place.device.type == "cpu":
            raise
    options.notify(f"Memory ran out while {doing}; continuing on the CPU.", options.plan)
    return work(Place(torch.device("cpu"), torch.float32))


def _decode_at(at: Place, residency: Residency, latents: Tensor, options: RunOptions) -> Tensor:
    decoder = options.tiny_decoder or residency.model.autoencoder
    by_frame, frames, done = latents[0].transpose(0, 1), [], 0
    task = Task(decoder.decoding_part(), DECODING, remedy=REMEDY)
    with PlanRunner(residency, task, options.plan, at, options.notify) as vae:
        while done < len(by_frame):
            some = vae(functools.partial(_decode_some, decoder, by_frame[done:]))
            frames.append(to_uint8(some.float()).cpu())
            done += len(some)
            options.on_step(Step("decode", done, len(by_frame)))
    return torch.cat(frames)


def _decode_some(decoder: Autoencoder | TinyDecoder, latents: Tensor, plan: Plan, place: Place) -> Tensor:
    """Return the first frames [n, 3, 8 h, 8 w] of latents [f, c, h, w]: as many as the plan decodes at once."""
    count = frames_at_once(decoder, plan, Clip(len(latents), *latents.shape[2:]), place)
    return decoder.latents_to_frames(latents[:count].to(*place), plan.budget_on(place.device))
