"""The miniature's sizes and its training: every number that shapes the checkpoint."""

from dataclasses import dataclass, field
from pathlib import Path

from ..modelscope.config import AutoencoderConfig, ModelConfig, TextConfig, UNetConfig

MODEL_FOLDER = Path(__file__).parent / "model"
"""Where the trained weights are."""
LORA_FILE = Path(__file__).parent / "lora" / "bar.safetensors"
"""What `train_lora.py` writes: a LoRA that knows bars."""

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


@dataclass(frozen=True)
class LoraRecipe:
    """How the LoRA is trained: pairs of matrices of this rank for all modules whose names the pattern finds."""

    seed: int = 2024
    rank: int = 3
    modules: str = r"^(?!.*temp_|transformer_in)"
    """All that does not run along time: a shape is the same in every frame."""
    steps: int = 900
    rate: float = 3e-3
    new_share: int = 2
    """How often a clip of the new shape appears for one of each known combination, which keeps those as they are."""
    base: Recipe = field(
        default_factory=lambda: Recipe(
            shards=1, clips_per_label=4, unet_batch=4, long_clips=0.0, empty_captions=0.1, warmup_steps=30,
            ema_decay=0.99, checkpoint_every=50,
        )
    )  # fmt: skip
    """What the training has in common with that of the model."""
