"""KL autoencoder (VQGAN_autoencoder.pth): turns frames into latents an eighth as high and wide, and back."""

import itertools

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from ..config import AutoencoderConfig
from .clip_norm import measure_clip_norm
from .slices import WHOLE, ChunkBudget, add_into, add_slices, apply_silu, map_slices

LATENT_SCALE = 0.18215
"""The UNet's latents are the encoder's mean times this (Rombach et al., 2022)."""


def _norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(32, channels, eps=1e-6)


class ResnetBlock(nn.Module):
    """Two convolutions and a skip connection."""

    def __init__(self, channels: int, out_channels: int):
        super().__init__()
        self.norm1 = _norm(channels)
        self.conv1 = nn.Conv2d(channels, out_channels, 3, padding=1)
        self.norm2 = _norm(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        if channels != out_channels:
            self.nin_shortcut = nn.Conv2d(channels, out_channels, 1)

    def forward(self, x: Tensor, budget: ChunkBudget = WHOLE) -> Tensor:
        """[n, c, h, w] -> [n, out_channels, h, w]."""
        h = _norm_and_conv(self.norm1, self.conv1, x, budget)
        h = _norm_and_conv(self.norm2, self.conv2, h, budget)
        if not hasattr(self, "nin_shortcut"):
            return add_into(h, x)
        rows = budget.slices(x.shape[2], x[:, :, 0].numel())
        return add_slices(h, lambda part: self.nin_shortcut(x[:, :, part]), rows, dim=2)


class AttnBlock(nn.Module):
    """Single-head self-attention among the pixels of a frame; the 1x1 convolutions are the checkpoint's."""

    def __init__(self, channels: int):
        super().__init__()
        self.norm = _norm(channels)
        self.q = nn.Conv2d(channels, channels, 1)
        self.k = nn.Conv2d(channels, channels, 1)
        self.v = nn.Conv2d(channels, channels, 1)
        self.proj_out = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor, budget: ChunkBudget = WHOLE) -> Tensor:
        """[n, c, h, w] -> the same shape."""
        h = self.norm(x)
        q, k, v = (rearrange(layer(h), "n c h w -> n 1 (h w) c") for layer in (self.q, self.k, self.v))
        # Not every device has a fused kernel for a head of this width, so a score for every pair of pixels may be held.
        slices = budget.slices(q.shape[2], q.shape[0] * q.shape[2])
        out = map_slices(lambda part: F.scaled_dot_product_attention(q[:, :, part], k, v), slices, dim=2)
        return x + self.proj_out(rearrange(out, "n 1 (h w) c -> n c h w", h=x.shape[2]))


class Downsample(nn.Module):
    """A convolution that halves frames; it pads only at the right and at the bottom."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2)

    def forward(self, x: Tensor, budget: ChunkBudget = WHOLE) -> Tensor:
        """[n, c, h, w] -> [n, c, h/2, w/2], some rows at a time."""
        height = x.shape[2]

        def run(rows: slice) -> Tensor:
            first, end = 2 * rows.start, 2 * rows.stop + 1
            return self.conv(F.pad(x[:, :, first:end], (0, 1, 0, max(0, end - height))))

        return map_slices(run, budget.slices(height // 2, 2 * 2 * x[:, :, 0].numel()), dim=2)


class Upsample(nn.Module):
    """Nearest-neighbour enlargement of frames to twice their size, then a convolution."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor, budget: ChunkBudget = WHOLE) -> Tensor:
        """[n, c, h, w] -> [n, c, 2 h, 2 w], some rows at a time."""
        height = 2 * x.shape[2]

        def run(rows: slice) -> Tensor:
            first, end = max(rows.start - 1, 0), min(rows.stop + 1, height)
            part = F.interpolate(x[:, :, first // 2 : (end + 1) // 2], scale_factor=2.0, mode="nearest")
            return _conv_rows(self.conv, part[:, :, first % 2 :][:, :, : end - first], rows, height)

        return map_slices(run, budget.slices(height, 2 * 2 * x[:, :, 0].numel()), dim=2)


def _norm_and_conv(norm: nn.GroupNorm, conv: nn.Conv2d, x: Tensor, budget: ChunkBudget) -> Tensor:
    """Compute conv(SiLU(norm(x))) of frames [n, c, h, w], some rows at a time."""
    height = x.shape[2]
    slices = budget.slices(height, 3 * x[:, :, 0].numel())
    if len(slices) == 1:
        return conv(apply_silu(norm(x)))
    normalise = measure_clip_norm(norm, x, budget)

    def run(rows: slice) -> Tensor:
        part = x[:, :, max(rows.start - 1, 0) : rows.stop + 1]
        return _conv_rows(conv, apply_silu(normalise(part)), rows, height)

    return map_slices(run, slices, dim=2)


def _conv_rows(conv: nn.Conv2d, part: Tensor, rows: slice, height: int) -> Tensor:
    """Run a 3x3 convolution for some rows of the frames.

    Args:
        conv: the convolution.
        part: its input in these rows and the rows next to them, [n, c, r, w].
        rows: the rows of the output to compute.
        height: height of a whole frame.
    """
    beyond = (0, 0, int(rows.start == 0), int(rows.stop == height))
    return F.conv2d(F.pad(part, beyond), conv.weight, conv.bias, padding=(0, 1))


def _middle(channels: int) -> nn.Module:
    middle = nn.Module()
    middle.block_1 = ResnetBlock(channels, channels)
    middle.attn_1 = AttnBlock(channels)
    middle.block_2 = ResnetBlock(channels, channels)
    return middle


def _run_middle(middle: nn.Module, x: Tensor, budget: ChunkBudget = WHOLE) -> Tensor:
    for name in ("block_1", "attn_1", "block_2"):
        x = getattr(middle, name)(x, budget)
    return x


class Encoder(nn.Module):
    """Frames [n, 3, h, w] -> moments [n, 2 z, h/8, w/8]."""

    def __init__(self, config: AutoencoderConfig):
        super().__init__()
        dims = [config.ch * mult for mult in (1, *config.ch_mult)]
        self.conv_in = nn.Conv2d(config.in_channels, config.ch, 3, padding=1)
        self.down = nn.ModuleList()
        for dim_in, dim_out in itertools.pairwise(dims):
            level = nn.Module()
            inputs = [dim_in, *[dim_out] * (config.num_res_blocks - 1)]
            level.block = nn.ModuleList(ResnetBlock(channels, dim_out) for channels in inputs)
            if len(self.down) < len(config.ch_mult) - 1:
                level.downsample = Downsample(dim_out)
            self.down.append(level)
        self.mid = _middle(dims[-1])
        self.norm_out = _norm(dims[-1])
        self.conv_out = nn.Conv2d(dims[-1], 2 * config.z_channels, 3, padding=1)

    def forward(self, x: Tensor, budget: ChunkBudget = WHOLE) -> Tensor:
        x = self.conv_in(x)
        for level in self.down:
            for block in level.block:  # type: ignore[union-attr]
                x = block(x, budget)
            if hasattr(level, "downsample"):
                x = level.downsample(x, budget)  # type: ignore[operator]
        x = _run_middle(self.mid, x, budget)
        return _norm_and_conv(self.norm_out, self.conv_out, x, budget)


class Decoder(nn.Module):
    """Latents [n, z, h, w] -> frames [n, 3, 8 h, 8 w]."""

    def __init__(self, config: AutoencoderConfig):
        super().__init__()
        dims = [config.ch * mult for mult in config.ch_mult]
        self.conv_in = nn.Conv2d(config.z_channels, dims[-1], 3, padding=1)
        self.mid = _middle(dims[-1])
        levels: list[nn.Module] = []
        channels = dims[-1]
        for depth, dim in reversed(list(enumerate(dims))):
            level = nn.Module()
            inputs = [channels, *[dim] * config.num_res_blocks]
            level.block = nn.ModuleList(ResnetBlock(channels_in, dim) for channels_in in inputs)
            if depth > 0:
                level.upsample = Upsample(dim)
            levels.insert(0, level)
            channels = dim
        self.up = nn.ModuleList(levels)
        self.norm_out = _norm(channels)
        self.conv_out = nn.Conv2d(channels, config.out_ch, 3, padding=1)

    def forward(self, z: Tensor, budget: ChunkBudget = WHOLE) -> Tensor:
        x = _run_middle(self.mid, self.conv_in(z), budget)
        for level in reversed(self.up):
            for block in level.block:  # type: ignore[union-attr]
                x = block(x, budget)
            if hasattr(level, "upsample"):
                x = level.upsample(x, budget)  # type: ignore[operator]
        return _norm_and_conv(self.norm_out, self.conv_out, x, budget)


class Autoencoder(nn.Module):
    """The checkpoint's `first_stage_model` (248 keys at full size)."""

    def __init__(self, config: AutoencoderConfig):
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)
        self.quant_conv = nn.Conv2d(2 * config.z_channels, 2 * config.embed_dim, 1)
        self.post_quant_conv = nn.Conv2d(config.embed_dim, config.z_channels, 1)

    def decoding_part(self) -> nn.Module:
        """Return the modules whose weights decoding needs."""
        return nn.ModuleList([self.post_quant_conv, self.decoder])

    def encoding_part(self) -> nn.Module:
        """Return the modules whose weights encoding needs."""
        return nn.ModuleList([self.encoder, self.quant_conv])

    def encode(self, frames: Tensor, budget: ChunkBudget = WHOLE) -> tuple[Tensor, Tensor]:
        """Turn frames [n, 3, h, w] in -1..1 into mean and log-variance, each [n, embed_dim, h/8, w/8], unscaled."""
        mean, logvar = self.quant_conv(self.encoder(frames, budget)).chunk(2, dim=1)
        return mean, logvar.clamp(-30.0, 20.0)

    def decode(self, z: Tensor, budget: ChunkBudget = WHOLE) -> Tensor:
        """Turn unscaled latents [n, embed_dim, h, w] into frames [n, 3, 8 h, 8 w], about -1..1."""
        return self.decoder(self.post_quant_conv(z), budget)

    def frames_to_latents(self, frames: Tensor, budget: ChunkBudget = WHOLE) -> Tensor:
        """Turn frames [n, 3, h, w] in -1..1 into the latents that the UNet works on (the mean, without randomness)."""
        return self.encode(frames, budget)[0] * LATENT_SCALE

    def latents_to_frames(self, latents: Tensor, budget: ChunkBudget = WHOLE) -> Tensor:
        """Turn the UNet's latents [n, c, h, w] into frames [n, 3, 8 h, 8 w] in 0..1."""
        return (self.decode(latents / LATENT_SCALE, budget) * 0.5 + 0.5).clamp(0.0, 1.0)


def from_uint8(frames: Tensor) -> Tensor:
    """Turn RGB bytes [n, h, w, 3] into frames [n, 3, h, w] in -1..1, in float32."""
    return rearrange(frames, "n h w c -> n c h w").float() / 127.5 - 1


def to_uint8(frames: Tensor) -> Tensor:
    """Turn frames [n, 3, h, w] in 0..1 into RGB bytes [n, h, w, 3]; values are truncated, as in the original."""
    return rearrange((frames * 255).to(torch.uint8), "n c h w -> n h w c").contiguous()
