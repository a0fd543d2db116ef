"""Layers of the UNet other than attention. Tensors are frames [(b f), c, h, w]; names are the checkpoint's."""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .chunks import WHOLE, Chunks, activated, added, clip_norm, mapped

RES_VALUES = 3
"""Numbers held per number that goes into a ResBlock or comes out of it."""


def timestep_embedding(timesteps: Tensor, dim: int) -> Tensor:
    """Sinusoids of (fractional) timesteps [b] -> [b, dim], cosine first (Ho et al., 2020, as in the original)."""
    half = dim // 2
    exponents = torch.arange(half, dtype=torch.float32, device=timesteps.device) / half
    angles = timesteps.float()[:, None] * torch.exp(-math.log(10_000) * exponents)
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


class TemporalConv(nn.Module):
    """Four convolutions along time with a residual around them.

    Each stage is a norm that sees all frames and pixels, then what does not mix pixels, so any chunk of them may run.
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

    def forward(self, x: Tensor, frames: int, chunks: Chunks = WHOLE) -> Tensor:
        """Frames [(b f), c, h, w] -> the same, overwritten unless gradients are wanted."""
        clip = x.unflatten(0, (-1, frames)).flatten(3).transpose(1, 2)
        b, c, f, count = clip.shape
        pieces = chunks.pieces(count, 3 * b * c * f)
        hidden = mapped(self._stage_of(self.conv1, clip, chunks), pieces, dim=3)
        for stage in (self.conv2, self.conv3):
            hidden = mapped(self._stage_of(stage, hidden, chunks), pieces, dim=3, into=hidden)
        out = added(clip, self._stage_of(self.conv4, hidden, chunks), pieces, dim=3)
        return out.transpose(1, 2).flatten().view(x.shape)

    @staticmethod
    def _stage_of(stage: nn.Sequential, clip: Tensor, chunks: Chunks) -> Callable[[slice], Tensor]:
        norm, rest = stage[0], stage[2:]
        assert isinstance(norm, nn.GroupNorm)
        normalised = clip_norm(norm, clip, chunks)
        return lambda pixels: rest(activated(normalised(clip[..., pixels])))


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

    def forward(
        self, inputs: list[Tensor], emb: Tensor, frames: int, chunks: Chunks = WHOLE, *, overwrite: bool = False
    ) -> Tensor:
        """Frames [(b f), c, h, w] and the time embedding [b, emb_dim] -> [(b f), out_channels, h, w].

        inputs: tensors whose channels belong together; the list is emptied, so that they may be freed early.
        overwrite: the last of them may become the result, if that is of its shape.
        """
        hidden = self._within_frames(inputs, self.emb_layers(emb), chunks, overwrite and not torch.is_grad_enabled())
        return self.temopral_conv(hidden, frames, chunks)

    def _within_frames(self, inputs: list[Tensor], emb: Tensor, chunks: Chunks, overwrite: bool) -> Tensor:
        """The part in which frames do not mix, so any chunk of them may run."""
        parts = list(inputs)
        inputs.clear()
        emb = emb.repeat_interleave(len(parts[0]) // len(emb), dim=0)[:, :, None, None]
        norm, _, conv = self.in_layers
        out_norm, _, dropout, out_conv = self.out_layers

        def run(frames: slice) -> Tensor:
            x = torch.cat([part[frames] for part in parts], dim=1) if len(parts) > 1 else parts[0][frames]
            out = conv(activated(norm(x))) + emb[frames]
            return self.skip_connection(x) + out_conv(dropout(activated(out_norm(out))))

        each = RES_VALUES * parts[0][0, 0].numel() * (sum(part.shape[1] for part in parts) + emb.shape[1])
        into = parts[-1] if overwrite and parts[-1].shape[1] == emb.shape[1] else None
        return mapped(run, chunks.pieces(len(emb), each), into=into)


class Downsample(nn.Module):
    """Halves height and width (rounding up)."""

    def __init__(self, channels: int):
        super().__init__()
        self.op = nn.Conv2d(channels, channels, 3, stride=2, padding=1)

    def forward(self, x: Tensor, chunks: Chunks = WHOLE) -> Tensor:
        return mapped(lambda frames: self.op(x[frames]), chunks.pieces(len(x), x[0].numel()))


class Upsample(nn.Module):
    """Nearest-neighbour enlargement to the size of the skip that comes next, then a convolution."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor, size: tuple[int, ...], chunks: Chunks = WHOLE) -> Tensor:
        def run(frames: slice) -> Tensor:
            return self.conv(F.interpolate(x[frames], size=size, mode="nearest"))

        return mapped(run, chunks.pieces(len(x), 2 * x.shape[1] * size[0] * size[1]))
