"""Turns a request into frames: encodes the prompt, draws noise, samples and decodes."""

import functools
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from .device import Place
from .errors import OutOfMemory, memory_errors
from .lora.turbo import scale_condition
from .memory.estimate import Clip, frames_at_once
from .memory.lora_deltas import NO_LORAS, LoraDeltas
from .memory.passes import PassInputs, predict_noise
from .memory.plan import BALANCED, Plan
from .memory.plan_runner import Notify, PlanRunner, Task, warn
from .memory.residency import Residency
from .model import Model
from .network.autoencoder import Autoencoder, to_uint8
from .network.blocks import TextContext
from .network.deep_cache import DeepFeatureCache
from .network.tiny_decoder import TinyDecoder
from .network.unet3d import PassOptions
from .progress import OnStep, Step, ignore
from .prompts.encode import encode_prompts
from .request import VideoRequest
from .sampling.catalogue import get_sampler
from .sampling.denoiser import make_denoiser
from .sampling.guidance import Guidance, find_interval, guide
from .sampling.sampler import Denoise, Noise
from .sampling.schedules import NoiseLevel, to_ve, to_vp

DECODING_REMEDY = "Ask for a smaller size, or close other programs."


class Conditions(NamedTuple):
    """Conditions of the UNet's passes: features of the prompt and the negative prompt, each [1, tokens, width].

    scale: the guidance scale as an input of T2V-Turbo, [1, dim]; T2V-Turbo has no other guidance.
    """

    text: Tensor
    negative_text: Tensor
    scale: Tensor | None = None


@dataclass(frozen=True)
class RunOptions:
    """How a video is made, apart from what is asked for.

    Args:
        plan: The plan to begin with; if memory runs out, the next one takes over.
        loras: What is added to the model's weights. With T2V-Turbo's, the network takes the CFG scale as an input, and
            the negative prompt has no effect.
        on_step: Called after every step; it may raise to interrupt.
        notify: Called when the plan or the precision has to change.
        tiny_decoder: Decodes instead of the model's autoencoder, if given.
    """

    plan: Plan = BALANCED
    loras: LoraDeltas = NO_LORAS
    on_step: OnStep = ignore
    notify: Notify = warn
    tiny_decoder: TinyDecoder | None = None


DEFAULTS = RunOptions()


# Not inference_mode, which DirectML does not support.
@torch.no_grad()
def generate(residency: Residency, request: VideoRequest, options: RunOptions = DEFAULTS) -> Tensor:
    """Make one video: RGB bytes [frames, height, width, 3] on the CPU.

    Args:
        residency: The model, and its weights on the device.
        request: The parameters of the video.
        options: How to make it.

    Raises:
        ModelError: The model's numbers are not finite.
        OutOfMemory: No plan fits.
    """
    if options.loras or not options.plan.is_resident:
        # Such a run cannot use the weights that are kept on the device.
        residency.release()
    latents, plan = _make_latents(residency, request, options)
    return decode(residency, latents, replace(options, plan=plan))


def _make_latents(residency: Residency, request: VideoRequest, options: RunOptions) -> tuple[Tensor, Plan]:
    """Return the latents [1, c, f, h, w], and the plan under which sampling ended."""
    model, loras, notify = residency.model, options.loras, options.notify
    encoding = Task(model.text_encoder, "encoding the prompt", loras.text)
    with PlanRunner(residency, encoding, options.plan, model.place, notify) as text:
        prompt, negative_prompt = encode(model, [request.prompt, request.negative_prompt], text)
    options.on_step(Step("encode", 1, 1))
    # On the UNet's device: a recorded pass cannot copy it there.
    scale = scale_condition(loras.guidance, request.cfg_scale).to(model.place.device) if loras.is_turbo else None
    doing = f"sampling {request.frames} frames of {request.width} x {request.height}"
    with (
        memory_errors(doing, "Ask for fewer frames or a smaller size."),
        PlanRunner(residency, Task(model.unet, doing, loras.unet), text.plan, model.place, notify) as unet,
    ):
        conditions, noise = Conditions(prompt, negative_prompt, scale), seeded_noise(model, request)
        return sample(residency, request, conditions, noise, unet, options.on_step), unet.plan


def encode(model: Model, prompts: list[str], text: PlanRunner) -> list[Tensor]:
    """Return the prompts' features, to which the UNet attends, each [1, tokens, width].

    text: runs the model's text encoder.
    """
    return text(lambda _, place: encode_prompts(model.text_encoder, prompts, place))


def sample(
    residency: Residency,
    request: VideoRequest,
    conditions: Conditions,
    noise: Noise,
    unet: PlanRunner,
    on_step: OnStep = ignore,
) -> Tensor:
    """Denoise the first latents that `noise` returns.

    Args:
        residency: The model, and its weights on the device.
        request: Size, sampler and guidance.
        conditions: The conditions of the UNet's passes.
        noise: Returns new standard normal latents at each call.
        unet: Runs the model's UNet.
        on_step: Called after every step; it may raise to interrupt.

    Returns:
        Latents [1, c, f, h, w] in float32.
    """
    model, sampler = residency.model, get_sampler(request.sampler)
    levels = sampler.grid(request.steps)
    cond, uncond = unet(lambda _, place: [model.unet.text_context(text.to(*place)) for text in conditions[:2]])
    guidance = _guidance(request, levels) if conditions.scale is None else Guidance(1.0)
    guided = guide(_network(residency, unet, request, conditions.scale), cond, uncond, guidance)
    x = to_ve(noise(), levels[0])
    denoise = _Remembered(make_denoiser(guided))
    solver = sampler.solve(denoise, x, levels, noise, request.eta)
    for done, (x, level) in enumerate(zip(solver, levels[1:], strict=True), 1):
        latents = to_vp(x, level)
        on_step(Step("sample", done, len(levels) - 1, denoise.latest))
    return latents


def _guidance(request: VideoRequest, levels: Sequence[NoiseLevel]) -> Guidance:
    asked = [level.timestep for level in levels[:-1]]
    return Guidance(request.cfg_scale, request.cfg_rescale, *find_interval(asked, request.cfg_from, request.cfg_until))


class _Remembered:
    """A denoiser that remembers its latest answer."""

    def __init__(self, denoise: Denoise) -> None:
        self._denoise = denoise
        self.latest: Tensor | None = None

    def __call__(self, x: Tensor, level: NoiseLevel) -> Tensor:
        self.latest = self._denoise(x, level)
        return self.latest


def seeded_noise(model: Model, request: VideoRequest) -> Noise:
    """Return a source of standard normal latents [1, c, f, h, w].

    They are drawn on the CPU, so that every device gets the same ones.
    """
    generator = torch.Generator().manual_seed(request.seed)
    scale = model.config.autoencoder.scale
    size = (request.frames, request.height // scale, request.width // scale)
    return lambda: torch.randn(1, model.config.unet.in_dim, *size, generator=generator).to(model.place.device)


def _network(
    residency: Residency, unet: PlanRunner, request: VideoRequest, scale: Tensor | None
) -> Callable[[Tensor, Tensor, Sequence[TextContext]], list[Tensor]]:
    """Return the UNet as a function for `guide`. In draft mode only some calls run its deep levels."""
    calls, cache, draft = itertools.count(), DeepFeatureCache(), request.draft

    def network(latents: Tensor, timesteps: Tensor, contexts: Sequence[TextContext]) -> list[Tensor]:
        if next(calls) % draft == 0:
            cache.clear()

        def work(plan: Plan, place: Place) -> list[Tensor]:
            options = PassOptions(plan.budget_on(place.device), plan.batch_cfg, cache if draft > 1 else None)
            texts = [{layer: text.to(place.dtype) for layer, text in context.items()} for context in contexts]
            inputs = PassInputs(latents.to(place.dtype), timesteps, texts, scale)
            recorder = residency.recorder_for(plan, place) if draft == 1 else None
            return predict_noise(residency.model.unet, inputs, options, recorder)

        return unet(work)

    return network


@torch.no_grad()
def decode(residency: Residency, latents: Tensor, options: RunOptions = DEFAULTS) -> Tensor:
    """Turn latents [1, c, f, h, w] into RGB bytes [f, 8 h, 8 w, 3] on the CPU, as many at a time as the plan allows.

    Computes at the model's `vae_place`, or on the CPU if memory does not suffice there. The errors are those of
    `generate`.
    """
    decoder = options.tiny_decoder or residency.model.autoencoder
    vae_place = residency.model.vae_place
    try:
        return _decode_at(vae_place, residency, decoder, latents, options)
    except OutOfMemory:
        if vae_place.device.type == "cpu":
            raise
    options.notify("Memory ran out while decoding; continuing on the CPU.", options.plan)
    return _decode_at(Place(torch.device("cpu"), torch.float32), residency, decoder, latents, options)


def _decode_at(
    place: Place, residency: Residency, decoder: Autoencoder | TinyDecoder, latents: Tensor, options: RunOptions
) -> Tensor:
    decoding, frames = decoder.decoding_part(), []
    by_frame, done = latents[0].transpose(0, 1), 0
    task = Task(decoding, "decoding", remedy=DECODING_REMEDY)
    with PlanRunner(residency, task, options.plan, place, options.notify) as vae:
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
