"""Video to video beside diffusers' own pipeline: the same weights, noise and strength give the same frames."""

import functools
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler, UniPCMultistepScheduler
from diffusers.pipelines.text_to_video_synthesis.pipeline_text_to_video_synth_img2img import VideoToVideoSDPipeline
from PIL import Image
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel

from sd_t2v.benchmarks.rivals import diffusers_unet
from sd_t2v.modelscope.conditioning.source import FREE, Source, arrange_latents
from sd_t2v.modelscope.conditioning.strength import DIFFUSERS
from sd_t2v.modelscope.encode_decode import decode, encode_frames
from sd_t2v.modelscope.memory.plan import BALANCED
from sd_t2v.modelscope.memory.plan_runner import PlanRunner, Task
from sd_t2v.modelscope.memory.residency import Residency
from sd_t2v.modelscope.pipeline import Conditions, sample
from sd_t2v.modelscope.request import VideoRequest
from sd_t2v.tests.helpers.diffusers_twins import make_autoencoder
from sd_t2v.tests.helpers.support import CPU, golden, small_model

SCHEDULERS: dict[str, Any] = {
    "DDIM": lambda: DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False, set_alpha_to_one=False,
        steps_offset=1,
    ),
    "DPM++ 2M": lambda: DPMSolverMultistepScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", steps_offset=1
    ),
    "UniPC": lambda: UniPCMultistepScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", steps_offset=1
    ),
}  # fmt: skip
PAIRS = [
    ("DDIM", 10, 0.3), ("DDIM", 20, 0.29), ("DDIM", 8, 1.0), ("DDIM", 25, 0.1), ("DPM++ 2M", 10, 0.6),
    ("DPM++ 2M", 25, 0.3), ("DPM++ 2M", 7, 0.75), ("UniPC", 10, 0.5), ("UniPC", 12, 0.25), ("UniPC", 6, 0.9),
]  # fmt: skip


@functools.cache
def networks() -> dict[str, Any]:
    """diffusers' own classes with the golden networks' weights, whose autoencoder's posterior has no spread."""
    autoencoder = make_autoencoder()
    spread = slice(small_model().config.autoencoder.embed_dim, None)
    autoencoder.quant_conv.weight.data[spread], autoencoder.quant_conv.bias.data[spread] = 0, -30
    unet = small_model().unet
    text = CLIPTextModel(
        CLIPTextConfig(hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2)
    )
    return {"vae": autoencoder, "unet": diffusers_unet(unet.config, unet.state_dict()), "text_encoder": text}


@pytest.mark.filterwarnings("ignore:__array__:DeprecationWarning")
@pytest.mark.parametrize(("sampler", "steps", "strength"), PAIRS)
@torch.no_grad()
def test_frames_equal_those_of_diffusers_pipeline(sampler: str, steps: int, strength: float) -> None:
    vectors = golden("vid2vid_unet_A")
    frames, cond, uncond = vectors["frames_u8"].to(torch.uint8), vectors["cond"], vectors["uncond"]
    pipeline = VideoToVideoSDPipeline(tokenizer=None, scheduler=SCHEDULERS[sampler](), **networks())
    pipeline.set_progress_bar_config(disable=True)
    theirs = pipeline(
        video=[Image.fromarray(frame.numpy()) for frame in frames],
        strength=strength,
        num_inference_steps=steps,
        guidance_scale=3.0,
        generator=torch.Generator().manual_seed(5),
        prompt_embeds=cond,
        negative_prompt_embeds=uncond,
        output_type="np",
    ).frames[0]
    ours = from_ours(frames, Conditions(cond, uncond), sampler, steps, strength)
    # Ours are truncated to bytes, theirs are not.
    gap = np.abs(ours.numpy() / 255 - theirs)
    assert float(gap.max()) < 2 / 255


def from_ours(frames: Tensor, conditions: Conditions, sampler: str, steps: int, strength: float) -> Tensor:
    model, residency = small_model(), Residency(small_model())
    count, height, width, _ = frames.shape
    request = VideoRequest(
        sampler=sampler, steps=steps, strength=strength, strength_meaning=DIFFUSERS, cfg_scale=3.0,
        frames=count, height=height, width=width, seed=1,
    )  # fmt: skip
    latents = encode_frames(residency, frames)
    source = Source(frames, tuple(range(count)), (FREE,) * count, starts=True, latents=latents)
    # Both are drawn frame by frame: first what the posterior would use, then the noise.
    generator = torch.Generator().manual_seed(5)
    torch.randn(count, 4, height // 8, width // 8, generator=generator)
    noise = torch.randn(count, 4, height // 8, width // 8, generator=generator).transpose(0, 1)[None]
    conditions = conditions._replace(source=arrange_latents(source, CPU.device))
    with PlanRunner(residency, Task(model.unet, "sampling"), BALANCED, CPU) as unet:
        return decode(residency, sample(residency, request, conditions, lambda: noise, unet))
