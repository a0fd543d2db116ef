"""A request to frames: encode the prompt, draw noise, sample, decode."""

import functools
import itertools
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from .device import Place
from .errors import OutOfMemory, memory_errors
from .lora.lora_file import Lora, wearing
from .lora.turbo import scale_condition
from .memory.plan import BALANCED, Plan
from .memory.plan_runner import Stage, Tell, as_planned, warn
from .memory.streaming import resident
from .model import Model
from .network.autoencoder import Autoencoder, to_uint8
from .network.blocks import TextContext
from .network.deep_cache import DeepFeatureCache
from .network.unet3d import PassOptions
from .progress import OnStep, Step, ignore
from .prompts.encode import encode_prompt
from .request import VideoRequest
from .sampling.catalogue import get_sampler
from .sampling.denoiser import make_denoiser
from .sampling.guidance import Guidance, find_interval, guide
from .sampling.registry import Denoise, Noise
from .sampling.schedules import NoiseLevel, to_ve, to_vp

DECODING_REMEDY = "Ask for a smaller size, or close other programs."


# Not inference_mode, of which DirectML knows nothing.
@torch.no_grad()
def generate(
    model: Model,
    request: VideoRequest,
    on_step: OnStep = ignore,
    plan: Plan = BALANCED,
    tell: Tell = warn,
    loras: Sequence[Lora] = (),
) -> Tensor:
    """Make one video: RGB bytes [frames, height, width, 3] on the CPU.

    plan: where to begin; where memory runs out, the next one takes over, and `tell` is told. on_step may raise to
    interrupt. loras: what the model wears, at their weights; with T2V-Turbo's, the network hears the CFG scale, and the
    negative prompt has no effect. Raises ModelError where the model computes no numbers, or OutOfMemory.
    """
    with wearing(model, loras):
        latents, plan = _sampled(model, request, on_step, plan, tell)
    return decode(model, latents, on_step, plan, _leaving(model, tell))


def _sampled(model: Model, request: VideoRequest, on_step: OnStep, plan: Plan, tell: Tell) -> tuple[Tensor, Plan]:
    """The latents, and the plan that they ended with."""
    if plan.streamed or plan.eight_bits:
        model.leave()
    changed = _leaving(model, tell)
    doing = f"sampling {request.frames} frames of {request.width} x {request.height}"
    with Stage(as_planned(model.text_encoder), plan, model.place, "encoding the prompt", changed) as text:
        texts = encode(model, [request.prompt, request.negative_prompt], text)
    on_step(Step("encode", 1, 1))
    with (
        memory_errors(doing, "Ask for fewer frames or a smaller size."),
        Stage(as_planned(model.unet), text.plan, model.place, doing, changed) as unet,
    ):
        return sample(model, request, texts, seeded_noise(model, request), unet, on_step), unet.plan


def _leaving(model: Model, tell: Tell) -> Tell:
    def changed(words: str, plan: Plan) -> None:
        # Whatever stayed on the device from run to run has no room there now.
        model.leave()
        tell(words, plan)

    return changed


def encode(model: Model, prompts: list[str], text: Stage) -> list[Tensor]:
    """Prompts as the features the UNet attends to, each [1, tokens, width]."""
    return text(lambda _, place: [encode_prompt(model.text_encoder, prompt, place) for prompt in prompts])


def sample(
    model: Model, request: VideoRequest, texts: list[Tensor], noise: Noise, unet: Stage, on_step: OnStep = ignore
) -> Tensor:
    """Denoise the first of `noise` under the prompt and the negative prompt: latents [1, c, f, h, w] in float32.

    texts: of both, as `encode` gives them.
    """
    sampler = get_sampler(request.sampler)
    levels = sampler.grid(request.steps)
    cond, uncond = unet(lambda _, place: [model.unet.text_context(text.to(*place)) for text in texts])
    guidance = Guidance(1.0) if model.unet.cond_proj else _guidance(request, levels)
    predict_noise = guide(_network(model, unet, request), cond, uncond, guidance)
    x = to_ve(noise(), levels[0])
    denoise = _Remembered(make_denoiser(predict_noise))
    solver = sampler.solve(denoise, x, levels, noise, request.eta)
    for done, (x, level) in enumerate(zip(solver, levels[1:], strict=True), 1):
        latents = to_vp(x, level)
        on_step(Step("sample", done, len(levels) - 1, denoise.latest))
    return latents


def _guidance(request: VideoRequest, levels: Sequence[NoiseLevel]) -> Guidance:
    asked = [level.timestep for level in levels[:-1]]
    return Guidance(request.cfg_scale, request.cfg_rescale, *find_interval(asked, request.cfg_from, request.cfg_until))


class _Remembered:
    """A denoiser whose latest answer can be looked at."""

    def __init__(self, denoise: Denoise) -> None:
        self._denoise = denoise
        self.latest: Tensor | None = None

    def __call__(self, x: Tensor, level: NoiseLevel) -> Tensor:
        self.latest = self._denoise(x, level)
        return self.latest


def seeded_noise(model: Model, request: VideoRequest) -> Noise:
    """Standard normal latents [1, c, f, h, w], one after the other; drawn on the CPU, so every device gets the same."""
    generator = torch.Generator().manual_seed(request.seed)
    scale = model.config.autoencoder.scale
    size = (request.frames, request.height // scale, request.width // scale)
    return lambda: torch.randn(1, model.config.unet.in_dim, *size, generator=generator).to(model.place.device)


def _network(
    model: Model, unet: Stage, request: VideoRequest
) -> Callable[[Tensor, Tensor, Sequence[TextContext]], list[Tensor]]:
    """The UNet as guidance calls it. In draft mode only some calls run its deep levels."""
    calls, cache, draft = itertools.count(), DeepFeatureCache(), request.draft
    cond_proj = model.unet.cond_proj
    condition = scale_condition(cond_proj, request.cfg_scale) if cond_proj else None

    def network(latents: Tensor, timesteps: Tensor, contexts: Sequence[TextContext]) -> list[Tensor]:
        if next(calls) % draft == 0:
            cache.clear()
        return unet(
            lambda plan, place: model.unet.predict_noise(
                latents.to(place.dtype),
                timesteps,
                [{layer: text.to(place.dtype) for layer, text in context.items()} for context in contexts],
                PassOptions(plan.chunk_budget, plan.batch_cfg, cache if draft > 1 else None),
                condition=condition,
            )
        )

    return network


@torch.no_grad()
def decode(model: Model, latents: Tensor, on_step: OnStep = ignore, plan: Plan = BALANCED, tell: Tell = warn) -> Tensor:
    """Latents [1, c, f, h, w] to RGB bytes [f, 8 h, 8 w, 3] on the CPU, one frame at a time.

    Computes where the autoencoder shall; on the CPU, where memory does not suffice. Raises as `generate` does.
    """
    try:
        return _decoded_at(model.vae_place, model, latents, on_step, plan, tell)
    except OutOfMemory:
        if model.vae_place.device.type == "cpu":
            raise
    tell("Memory ran out while decoding; going on on the CPU.", plan)
    cpu = Place(torch.device("cpu"), torch.float32)
    return _decoded_at(cpu, model, latents, on_step, plan, tell)


def _decoded_at(place: Place, model: Model, latents: Tensor, on_step: OnStep, plan: Plan, tell: Tell) -> Tensor:
    autoencoder = model.autoencoder
    decoding = nn.ModuleList([autoencoder.post_quant_conv, autoencoder.decoder])
    frames = []
    with Stage(lambda _, place: resident(decoding, place), plan, place, "decoding", tell, DECODING_REMEDY) as vae:
        for done, latent in enumerate(latents[0].transpose(0, 1), 1):
            frame = vae(functools.partial(_decoded, autoencoder, latent[None]))
            frames.append(to_uint8(frame.float().cpu()))
            on_step(Step("decode", done, latents.shape[2]))
    return torch.cat(frames)


def _decoded(autoencoder: Autoencoder, latent: Tensor, plan: Plan, place: Place) -> Tensor:
    return autoencoder.latents_to_frames(latent.to(*place), plan.chunk_budget)
