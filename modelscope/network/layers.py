"""Layers of the UNet other than attention. Activations are frames [(b f), c, h, w]; names are the checkpoint's."""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .clip_norm import measure_clip_norm, normalise_frames
from .clips import to_clip, to_frames
from .handover import Handover
from .slices import WHOLE, ChunkBudget, add_slices, apply_silu, map_slices, repeat_rows, scale_results

RES_VALUES = 3
"""Numbers that a ResBlock holds per number of its input and its output."""


def timestep_embedding(timesteps: Tensor, dim: int) -> Tensor:
    """Return the sinusoids of timesteps, cosines first (Ho et al., 2020, section B; as in the original).

    timesteps: [b], from 0 to 999, fractions allowed. Returns [b, dim] in float32.
    """
    half = dim // 2
    exponents = torch.arange(half, dtype=torch.float32, device=timesteps.device) / half
    angles = timesteps.float()[:, None] * torch.exp(-math.log(10_000) * exponents)
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


class TemporalConv(nn.Module):
    """Four convolutions along time with a residual connection around them.

    Each is preceded by a norm that sees all frames and pixels. The other layers do not mix pixels, so they can run on
    any slice of them.
    """

    def __init__(self, channels: int, dropout: float = 0.0):
        super().__init__()
        self.conv1 = self._layer(channels)
        self.conv2 = self._layer(channels, nn.Dropout(dropout))
        self.conv3 = self._layer(channels, nn.Dropout(dropout))
        self.conv4 = self._layer(channels, nn.Dropout(dropout))

    @staticmethod
    def _layer(channels: int, *dropout: nn.Module) -> nn.Sequential:
        return nn.Sequential(nn.GroupNorm(32, channels), nn.SiLU(), *dropout, FrameConv(channels))

    def forward(self, x: Tensor, frames: int, budget: ChunkBudget = WHOLE, motion: float = 1.0) -> Tensor:
        """Return x plus the convolutions' output.

        Args:
            x: [(b f), c, h, w]; overwritten unless gradients are needed.
            frames: f.
            budget: how many values to hold at once.
            motion: factor of the output.
        """
        clip = to_clip(x, frames)
        b, c, f, pixels = clip.shape
        slices = budget.slices(pixels, 3 * b * c * f)
        hidden = map_slices(self._prepare(self.conv1, clip, budget), slices, dim=3)
        for layer in (self.conv2, self.conv3):
            hidden = map_slices(self._prepare(layer, hidden, budget), slices, dim=3, into=hidden)
        last = scale_results(self._prepare(self.conv4, hidden, budget), motion)
        return to_frames(add_slices(clip, last, slices, dim=3), like=x)

    @staticmethod
    def _prepare(layer: nn.Sequential, clip: Tensor, budget: ChunkBudget) -> Callable[[slice], Tensor]:
        """Measure the norm of a clip [b, c, f, p]; return the layer as a function of a slice of pixels."""
        norm, rest = layer[0], layer[2:]
        assert isinstance(norm, nn.GroupNorm)
        normalise = measure_clip_norm(norm, clip, budget)
        return lambda pixels: rest(apply_silu(normalise(clip[..., pixels])))


class FrameConv(nn.Conv3d):
    """The checkpoint's (3, 1, 1) Conv3d, run as a 2-D convolution over [b, c, f, p]: CPUs lack a fast 3-D one."""

    def __init__(self, channels: int):
        super().__init__(channels, channels, (3, 1, 1), padding=(1, 0, 0))

    def forward(self, x: Tensor) -> Tensor:
        """Mix each frame with its neighbours: [b, c, f, p] -> the same shape."""
        return F.conv2d(x, self.weight.squeeze(-1), self.bias, padding=(1, 0))


class ResBlock(nn.Module):
    """Two convolutions within each frame, with the time embedding added between them, then temporal convolutions."""

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
        self,
        x: Handover,
        emb: Tensor,
        frames: int,
        budget: ChunkBudget = WHOLE,
        *,
        motion: float = 1.0,
        overwrite: bool = False,
    ) -> Tensor:
        """Return [(b f), out_channels, h, w].

        Args:
            x: one tensor [(b f), c, h, w], or several that are joined along their channels; they are taken out.
            emb: the time embedding [b, emb_dim].
            frames: f.
            budget: how many values to hold at once.
            motion: factor of what the temporal convolutions add.
            overwrite: whether the result may be written into the last tensor of x, if it has the result's shape.
        """
        hidden = self._within_frames(x, self.emb_layers(emb), budget, overwrite and not torch.is_grad_enabled())
        return self.temopral_conv(hidden, frames, budget, motion)

    def _within_frames(self, x: Handover, emb: Tensor, budget: ChunkBudget, overwrite: bool) -> Tensor:
        """Run the layers in which frames do not mix, so that any slice of them can be computed separately."""
        parts = x.take()
        emb = repeat_rows(emb, len(parts[0]))[:, :, None, None]  # [(b f), out_channels, 1, 1]
        norm, _, conv = self.in_layers
        out_norm, _, dropout, out_conv = self.out_layers
        assert isinstance(norm, nn.GroupNorm)
        assert isinstance(out_norm, nn.GroupNorm)

        def run(frames: slice) -> Tensor:
            joined = torch.cat([part[frames] for part in parts], dim=1) if len(parts) > 1 else parts[0][frames]
            out = conv(apply_silu(normalise_frames(norm, joined))) + emb[frames]
            return self.skip_connection(joined) + out_conv(dropout(apply_silu(normalise_frames(out_norm, out))))

        each = RES_VALUES * parts[0][0, 0].numel() * (sum(part.shape[1] for part in parts) + emb.shape[1])
        into = parts[-1] if overwrite and parts[-1].shape[1] == emb.shape[1] else None
        return map_slices(run, budget.slices(len(emb), each), into=into)


class Downsample(nn.Module):
    """A convolution that halves height and width, rounding up."""

    def __init__(self, channels: int):
        super().__init__()
        self.op = nn.Conv2d(channels, channels, 3, stride=2, padding=1)

    def forward(self, x: Tensor, budget: ChunkBudget = WHOLE) -> Tensor:
        """[(b f), c, h, w] -> [(b f), c, h/2, w/2]."""
        return map_slices(lambda frames: self.op(x[frames]), budget.slices(len(x), x[0].numel()))


class Upsample(nn.Module):
    """Nearest-neighbour enlargement of frames to the size of the next skip, then a convolution."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor, size: tuple[int, ...], budget: ChunkBudget = WHOLE) -> Tensor:
        """[(b f), c, h, w] -> [(b f), c, *size]."""

        def run(frames: slice) -> Tensor:
            return self.conv(F.interpolate(x[frames], size=size, mode="nearest"))

        return map_slices(run, budget.slices(len(x), 2 * x.shape[1] * size[0] * size[1]))
