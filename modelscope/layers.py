"""Layers of the UNet other than attention. Tensors are frames [(b f), c, h, w]; names are the checkpoint's."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def timestep_embedding(timesteps: Tensor, dim: int) -> Tensor:
    """Sinusoids of (fractional) timesteps [b] -> [b, dim], cosine first (Ho et al., 2020, as in the original)."""
    half = dim // 2
    exponents = torch.arange(half, dtype=torch.float32, device=timesteps.device) / half
    angles = timesteps.float()[:, None] * torch.exp(-math.log(10_000) * exponents)
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


class TemporalConv(nn.Module):
    """Four convolutions along time with a residual around them.

    Each stage is a norm that sees all frames and pixels, then (`stage[1:]`) what does not mix pixels, so any chunk of
    them may run.
    """

    def __init__(self, channels: int, dropout: float = 0.0):
        super().__init__()
        self.conv1 = self._stage(channels)
        self.conv2 = self._stage(channels, nn.Dropout(dropout))
        self.conv3 = self._stage(channels, nn.Dropout(dropout))
        self.conv4 = self._stage(channels, nn.Dropout(dropout))

    @staticmethod
    def _stage(channels: int, *dropout: nn.Module) -> nn.Sequential:
        return nn.Sequential(nn.GroupNorm(32, channels), nn.SiLU(), *dropout, FrameConv(channels))

    def forward(self, x: Tensor, frames: int) -> Tensor:
        """Frames [(b f), c, h, w] -> the same. The norms see all frames of a clip."""
        clip = x.unflatten(0, (-1, frames)).transpose(1, 2).flatten(3)
        out = self.conv4(self.conv3(self.conv2(self.conv1(clip))))
        return x + out.unflatten(3, x.shape[-2:]).transpose(1, 2).flatten(0, 1)


class FrameConv(nn.Conv3d):
    """The checkpoint's (3, 1, 1) Conv3d, run as a 2-D convolution over [b, c, f, h*w]: CPUs lack a fast 3-D one."""

    def __init__(self, channels: int):
        super().__init__(channels, channels, (3, 1, 1), padding=(1, 0, 0))

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight.squeeze(-1), self.bias, padding=(1, 0))


class ResBlock(nn.Module):
    """Two convolutions within each frame, with the timestep added between them, then the temporal ones."""

    def __init__(self, channels: int, emb_dim: int, out_channels: int, dropout: float = 0.0):
        super().__init__()
        self.in_layers = nn.Sequential(
            nn.GroupNorm(32, channels), nn.SiLU(), nn.Conv2d(channels, out_channels, 3, padding=1)
        )
        self.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(emb_dim, out_channels))
        self.out_layers = nn.Sequential(
            nn.GroupNorm(32, out_channels), nn.SiLU(), nn.Dropout(dropout),
            nn.Conv2d(out_channels, out_channels, 3, padding=1),
        )  # fmt: skip
        self.skip_connection = nn.Identity() if channels == out_channels else nn.Conv2d(channels, out_channels, 1)
        # The misspelling is the checkpoint's.
        self.temopral_conv = TemporalConv(out_channels, dropout)

    def forward(self, x: Tensor, emb: Tensor, frames: int) -> Tensor:
        """Frames [(b f), c, h, w] and the time embedding [b, emb_dim] -> [(b f), out_channels, h, w]."""
        return self.temopral_conv(self.within_frames(x, self.emb_layers(emb)), frames)

    def within_frames(self, x: Tensor, emb: Tensor) -> Tensor:
        """The part in which frames do not mix, so any chunk of them may run."""
        emb = emb.repeat_interleave(len(x) // len(emb), dim=0)[:, :, None, None]
        out = self.out_layers(self.in_layers(x) + emb)
        return self.skip_connection(x) + out


class Downsample(nn.Module):
    """Halves height and width (rounding up)."""

    def __init__(self, channels: int):
        super().__init__()
        self.op = nn.Conv2d(channels, channels, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.op(x)


class Upsample(nn.Module):
    """Nearest-neighbour enlargement to the size of the skip that comes next, then a convolution."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        return self.conv(F.interpolate(x, size=size, mode="nearest"))
