"""Turns a request into frames: encodes the prompt, draws noise, samples and decodes."""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from .conditioning.hold import finish, hold, start
from .conditioning.paste import paste_source
from .conditioning.source import Source, SourceLatents, arrange_latents
from .conditioning.strength import cut_levels
from .device import Place
from .encode_decode import decode, encode_frames
from .errors import memory_errors
from .lora.turbo import scale_condition
from .memory.passes import PassInputs, predict_noise
from .memory.plan import Plan
from .memory.plan_runner import PlanRunner, Task
from .memory.residency import Residency
from .model import Model
from .network.blocks import TextContext
from .network.deep_cache import DeepFeatureCache
from .network.unet3d import PassOptions
from .progress import OnStep, Step, ignore
from .prompts.encode import encode_prompts
from .request import VideoRequest
from .run_options import DEFAULTS, RunOptions
from .sampling.catalogue import get_sampler
from .sampling.denoiser import make_denoiser
from .sampling.guidance import Guidance, find_interval, guide
from .sampling.sampler import Denoise, Noise
from .sampling.schedules import NoiseLevel, to_vp
from .units import format_count


class Conditions(NamedTuple):
    """What sampling depends on besides numbers.

    text, negative_text: features of the prompt and the negative prompt, each [1, tokens, width].
    scale: the guidance scale as an input of T2V-Turbo, [1, dim]; T2V-Turbo has no other guidance.
    source: what the video is made from.
    """

    text: Tensor
    negative_text: Tensor
    scale: Tensor | None = None
    source: SourceLatents | None = None


# Not inference_mode, which DirectML does not support.
@torch.no_grad()
def generate(
    residency: Residency, request: VideoRequest, options: RunOptions = DEFAULTS, source: Source | None = None
) -> Tensor:
    """Make one video: RGB bytes [frames, height, width, 3] on the CPU.

    The arguments and errors are those of `generate_latents`.
    """
    latents, plan = generate_latents(residency, request, options, source)
    frames = decode(residency, latents, replace(options, plan=plan))
    return paste_source(frames, source) if source else frames


@torch.no_grad()
def generate_latents(
    residency: Residency, request: VideoRequest, options: RunOptions = DEFAULTS, source: Source | None = None
) -> tuple[Tensor, Plan]:
    """Make one video as latents: [1, c, f, h, w] in float32. Return them, and the plan under which sampling ended.

    Args:
        residency: The model, and its weights on the device.
        request: The parameters of the video.
        options: How to make it.
        source: What to make it from besides the prompt.

    Raises:
        ModelError: The model's numbers are not finite.
        OutOfMemory: No plan fits.
    """
    if not options.can_use_kept_weights:
        residency.release()
    source = encode_source(residency, source, options) if source else None
    model, loras, notify = residency.model, options.loras, options.notify
    encoding = Task(model.text_encoder, "encoding the prompt", loras.text)
    with PlanRunner(residency, encoding, options.plan, model.place, notify) as text:
        prompt, negative_prompt = encode(model, [request.prompt, request.negative_prompt], text)
    options.on_step(Step("encode", 1, 1))
    # On the UNet's device: a recorded pass cannot copy it there.
    scale = scale_condition(loras.guidance, request.cfg_scale).to(model.place.device) if loras.is_turbo else None
    doing = f"sampling {format_count(request.frames, 'frame')} of {request.width} x {request.height}"
    with (
        memory_errors(doing, "Ask for fewer frames or a smaller size."),
        PlanRunner(residency, Task(model.unet, doing, loras.unet), text.plan, model.place, notify) as unet,
    ):
        given = arrange_latents(source, model.place.device) if source else None
        conditions = Conditions(prompt, negative_prompt, scale, given)
        noise = seeded_noise(model, request)
        return sample(residency, request, conditions, noise, unet, options.on_step), unet.plan


def encode_source(residency: Residency, source: Source, options: RunOptions = DEFAULTS) -> Source:
    """Return a source with its latents. If several videos are made from it, it needs to be encoded only once."""
    if source.latents is not None:
        return source
    return replace(source, latents=encode_frames(residency, source.frames, options))


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
    model, sampler, source = residency.model, get_sampler(request.sampler), conditions.source
    every = sampler.grid(request.steps)
    levels = cut_levels(every, request.strength, request.strength_meaning) if source and source.starts else every
    cond, uncond = unet(lambda _, place: [model.unet.text_context(text.to(*place)) for text in conditions[:2]])
    guidance = _guidance(request, levels) if conditions.scale is None else Guidance(1.0)
    guided = guide(_network(residency, unet, request, conditions.scale), cond, uncond, guidance)
    denoise = make_denoiser(guided)
    denoise = _Remembered(hold(denoise, every, source) if source else denoise)
    x = start(noise(), levels[0], source)
    solver = sampler.solve(denoise, x, levels, noise, request.eta)
    latents = to_vp(x, levels[0])
    for done, (x, level) in enumerate(zip(solver, levels[1:], strict=True), 1):
        latents = to_vp(x, level)
        on_step(Step("sample", done, len(levels) - 1, denoise.latest))
    return finish(latents, source) if source else latents


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
            kept = cache if draft > 1 else None
            options = PassOptions(plan.budget_on(place.device), plan.batch_cfg, kept, request.motion)
            texts = [{layer: text.to(place.dtype) for layer, text in context.items()} for context in contexts]
            inputs = PassInputs(latents.to(place.dtype), timesteps, texts, scale)
            recorder = residency.recorder_for(plan, place) if draft == 1 else None
            return predict_noise(residency.model.unet, inputs, options, recorder)

        return unet(work)

    return network
