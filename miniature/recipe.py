"""What the miniature is and how it is trained: every number that shapes the checkpoint."""

from dataclasses import dataclass
from pathlib import Path

from ..modelscope.config import AutoencoderConfig, ModelConfig, TextConfig, UNetConfig

MODEL_FOLDER = Path(__file__).parent / "model"
"""Where the trained weights lie."""

MINIATURE = ModelConfig(
    unet=UNetConfig(
        dim=64,
        context_dim=32,
        dim_mult=[1, 2],
        num_heads=4,
        head_dim=16,
        num_res_blocks=1,
        attn_scales=[1.0, 0.5],
        dropout=0.0,
    ),
    autoencoder=AutoencoderConfig(ch=32, ch_mult=[1, 1, 2, 2], num_res_blocks=1),
    text=TextConfig(width=32, heads=2, layers=4),
    recommended={"width": 64, "height": 64, "frames": 8, "fps": 8, "steps": 25, "cfg_scale": 2.0},
)


@dataclass(frozen=True)
class Recipe:
    """Training hyperparameters. Steps are optimiser steps; batches are those of one shard."""

    seed: int = 2023
    shards: int = 2
    """Parts of a batch, each on a thread of its own: on CPUs that beats threads inside of operations."""
    text_steps: int = 600
    text_batch: int = 32
    text_rate: float = 2e-3
    autoencoder_steps: int = 2600
    autoencoder_batch: int = 6
    autoencoder_rate: float = 3e-3
    latent_noise: float = 0.02
    shape_weight: float = 6.0
    """How much more an error inside the shape counts than one in the background."""
    clips_per_label: int = 32
    clip_frames: int = 16
    unet_steps: int = 4300
    unet_batch: int = 8
    unet_rate: float = 1.5e-3
    warmup_steps: int = 150
    plateau: float = 0.6
    """Share of the steps at the full rate, before it falls along a cosine."""
    ema_decay: float = 0.998
    empty_captions: float = 0.2
    partial_captions: float = 0.08
    long_clips: float = 0.2
    snr_floor: float = 0.3
    snr_limit: float = 5.0
    """The loss weighs an error in x0 by the SNR between these two. The limit is min-SNR (Hang et al., 2023). Without
    the floor the noisiest steps hardly count, and they alone teach which way to go: later, the clip itself shows it."""
    late_bias: float = 0.35
    """Timesteps are 999 u**late_bias, u uniform: more of them where colour, shape and direction are decided."""
    checkpoint_every: int = 250
