"""A request to frames: encode the prompt, draw noise, sample, decode."""

from collections.abc import Callable

import torch
from torch import Tensor

from .autoencoder import to_uint8
from .chunks import Chunks
from .errors import ModelError, memory_errors
from .guidance import Guidance, guided
from .loading import Model
from .progress import OnStep, Step, ignore
from .prompts import encode_prompt
from .request import VideoRequest
from .samplers.catalogue import get_sampler
from .samplers.parameterisation import denoiser
from .samplers.registry import Denoise, Noise
from .schedule import Level, to_ve, to_vp
from .unet3d import TextContext

CHUNKS = Chunks(8_000_000)
"""Small beside what a clip's skips take, large enough that the pieces keep a device busy."""


@torch.inference_mode()
def generate(model: Model, request: VideoRequest, on_step: OnStep = ignore) -> Tensor:
    """Make one video: RGB bytes [frames, height, width, 3] on the CPU.

    on_step may raise to interrupt. Raises ModelError where the model computes no numbers, or OutOfMemory.
    """
    size = f"{request.frames} frames of {request.width} x {request.height}"
    with memory_errors(size, "Ask for fewer frames or a smaller size."):
        cond, uncond = (encode(model, prompt) for prompt in (request.prompt, request.negative_prompt))
        on_step(Step("encode", 1, 1))
        latents = sample(model, request, (cond, uncond), seeded_noise(model, request), on_step)
    return decode(model, latents, on_step)


def encode(model: Model, prompt: str) -> TextContext:
    """A prompt as the UNet's keys and values."""
    return model.unet.text_context(encode_prompt(model.text_encoder, prompt))


def sample(
    model: Model,
    request: VideoRequest,
    contexts: tuple[TextContext, TextContext],
    noise: Noise,
    on_step: OnStep = ignore,
) -> Tensor:
    """Denoise the first of `noise` under the prompt and the negative prompt: latents [1, c, f, h, w] in float32."""
    sampler = get_sampler(request.sampler)
    levels = sampler.grid(request.steps)
    predict_noise = guided(_network(model), *contexts, Guidance(request.cfg_scale))
    x = to_ve(noise(), levels[0])
    denoise = _Remembered(denoiser(predict_noise))
    solver = sampler.solve(denoise, x, levels, noise, request.eta)
    for done, (x, level) in enumerate(zip(solver, levels[1:], strict=True), 1):
        latents = to_vp(x, level)
        _check_finite(latents, "sampling")
        on_step(Step("sample", done, len(levels) - 1, denoise.latest))
    return latents


class _Remembered:
    """A denoiser whose latest answer can be looked at."""

    def __init__(self, denoise: Denoise) -> None:
        self._denoise = denoise
        self.latest: Tensor | None = None

    def __call__(self, x: Tensor, level: Level) -> Tensor:
        self.latest = self._denoise(x, level)
        return self.latest


def seeded_noise(model: Model, request: VideoRequest) -> Noise:
    """Standard normal latents [1, c, f, h, w], one after the other; drawn on the CPU, so every device gets the same."""
    generator = torch.Generator().manual_seed(request.seed)
    scale = model.config.autoencoder.scale
    size = (request.frames, request.height // scale, request.width // scale)
    return lambda: torch.randn(1, model.config.unet.in_dim, *size, generator=generator).to(model.device)


def _network(model: Model) -> Callable[[Tensor, Tensor, list[TextContext]], list[Tensor]]:
    def network(latents: Tensor, timesteps: Tensor, contexts: list[TextContext]) -> list[Tensor]:
        return model.unet.noises(latents.to(model.dtype), timesteps, contexts, CHUNKS)

    return network


@torch.inference_mode()
def decode(model: Model, latents: Tensor, on_step: OnStep = ignore) -> Tensor:
    """Latents [1, c, f, h, w] to RGB bytes [f, 8 h, 8 w, 3] on the CPU, one frame at a time.

    Computes where the autoencoder lives. Raises as `generate` does.
    """
    frames = []
    weight = next(model.autoencoder.parameters())
    with memory_errors("decoding", "Ask for a smaller size."):
        for done, latent in enumerate(latents[0].transpose(0, 1), 1):
            frame = model.autoencoder.latents_to_frames(latent[None].to(weight)).float()
            _check_finite(frame, "decoding")
            frames.append(to_uint8(frame.cpu()))
            on_step(Step("decode", done, latents.shape[2]))
        return torch.cat(frames)


def _check_finite(values: Tensor, stage: str) -> None:
    if not bool(values.isfinite().all()):
        raise ModelError(
            f"The model produced numbers that are not finite while {stage}; the video would be black. "
            "Try a lower CFG scale or full precision (float32)."
        )
