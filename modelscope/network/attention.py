"""Attention and the transformers built from it: spatial (with text) and temporal."""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .chunks import WHOLE, Chunks, Pieces, added, clip_norm, mapped, plus

# CUDA's fused kernels put batch and heads into grid dimensions that end at 65,535.
MAX_GRID = 65_535
FUSED = ("cpu", "cuda", "xpu", "meta")
"""Devices whose attention does not hold a score for every query and key. Old cards' may, which the ladder finds out."""
SCORES = 32_000_000
"""Scores that others hold at once."""
ATTENTION_VALUES, FF_VALUES = 7, 14
"""Numbers held per number that goes into a transformer, and into a feed-forward network (eight times as wide, and
then four)."""


class KeysValues(NamedTuple):
    """Keys and values of one cross-attention, each [b, heads, tokens, head_dim]."""

    keys: Tensor
    values: Tensor

    def to(self, dtype: torch.dtype) -> "KeysValues":
        """The same in another precision."""
        return KeysValues(self.keys.to(dtype), self.values.to(dtype))


def scaled_dot_product(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attention over [n, heads, length, head_dim]; a long batch runs in pieces that every kernel accepts."""
    fused = q.device.type in FUSED
    per_query = q.shape[1] * k.shape[2]
    rows = MAX_GRID if fused else max(1, SCORES // (per_query * q.shape[2]))
    if len(q) > rows:
        pieces = zip(q.split(rows), k.split(rows), v.split(rows), strict=True)
        return torch.cat([scaled_dot_product(*piece) for piece in pieces])
    queries = q.shape[2] if fused else max(1, SCORES // (per_query * len(q)))
    return mapped(
        lambda piece: F.scaled_dot_product_attention(q[:, :, piece], k, v),
        Chunks(queries).pieces(q.shape[2], 1),
        dim=2,
    )


class Attention(nn.Module):
    """Multi-head attention with the checkpoint's names: to_q, to_k, to_v without bias, to_out.0 with."""

    def __init__(self, dim: int, heads: int, head_dim: int, context_dim: int | None = None, dropout: float = 0.0):
        super().__init__()
        inner = heads * head_dim
        self.heads = heads
        self.to_q = nn.Linear(dim, inner, bias=False)
        self.to_k = nn.Linear(context_dim or dim, inner, bias=False)
        self.to_v = nn.Linear(context_dim or dim, inner, bias=False)
        self.to_out = nn.Sequential(nn.Linear(inner, dim), nn.Dropout(dropout))

    def keys_values(self, context: Tensor) -> KeysValues:
        """Project [n, tokens, context_dim] once; the result serves every frame and every step."""
        return KeysValues(self._split_heads(self.to_k(context)), self._split_heads(self.to_v(context)))

    def forward(self, x: Tensor, context: KeysValues | None = None) -> Tensor:
        """[n, length, dim] attends to itself, or to keys and values whose batch divides n."""
        q = self._split_heads(self.to_q(x))
        k, v = context or self.keys_values(x)
        if len(k) != len(q):
            k, v = _per_frame(k, len(q)), _per_frame(v, len(q))
        out = scaled_dot_product(q, k, v).transpose(1, 2).flatten(2)
        return self.to_out(out)

    def _split_heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)


def _of_frames(context: KeysValues, frames: slice, per_clip: int) -> KeysValues:
    """The keys and values for some frames [(b f)]: one entry where they belong to one clip, else one per frame."""
    clips = [number // per_clip for number in range(frames.start, frames.stop)]
    chosen = slice(clips[0], clips[0] + 1) if clips[0] == clips[-1] else clips
    return KeysValues(context.keys[chosen], context.values[chosen])


def _per_frame(x: Tensor, n: int) -> Tensor:
    return x.repeat_interleave(n // len(x), dim=0) if len(x) > 1 else x.expand(n, -1, -1, -1)


class GEGLU(nn.Module):
    """Gated linear unit (Shazeer, 2020): the first half is the value, the second passes an exact GELU."""

    def __init__(self, dim: int, inner: int):
        super().__init__()
        self.proj = nn.Linear(dim, inner * 2)

    def forward(self, x: Tensor) -> Tensor:
        value, gate = self.proj(x).chunk(2, dim=-1)
        return value * F.gelu(gate)


class FeedForward(nn.Module):
    """Position-wise network, four times as wide inside."""

    def __init__(self, dim: int, dropout: float = 0.0):
        super().__init__()
        self.net = nn.Sequential(GEGLU(dim, dim * 4), nn.Dropout(dropout), nn.Linear(dim * 4, dim))

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


class TransformerBlock(nn.Module):
    """Self-attention, then attention to the text (or, in time, to itself again), then feed-forward.

    The first does not see the text; so there are two parts, of which different texts share one.
    """

    def __init__(self, dim: int, heads: int, head_dim: int, context_dim: int | None = None, dropout: float = 0.0):
        super().__init__()
        self.attn1 = Attention(dim, heads, head_dim, dropout=dropout)
        self.ff = FeedForward(dim, dropout)
        self.attn2 = Attention(dim, heads, head_dim, context_dim, dropout)
        self.norm1 = nn.LayerNorm(dim)
        self.norm2 = nn.LayerNorm(dim)
        self.norm3 = nn.LayerNorm(dim)

    def begin(self, x: Tensor) -> Tensor:
        """The first attention: [n, length, dim] -> the same, overwritten unless gradients are wanted."""
        return plus(x, self.attn1(self.norm1(x)))

    def forward(self, x: Tensor, context: KeysValues | None = None, chunks: Chunks = WHOLE) -> Tensor:
        """The rest: what `begin` returned, [n, length, dim] -> the same, overwritten likewise."""
        x = plus(x, self.attn2(self.norm2(x), context))
        tokens = x.flatten(0, 1)
        pieces = chunks.pieces(len(tokens), FF_VALUES * tokens.shape[1])
        return added(tokens, lambda piece: self.ff(self.norm3(tokens[piece])), pieces).unflatten(0, x.shape[:2])


class SpatialTransformer(nn.Module):
    """Attention among the pixels of each frame and to the text. Frames do not mix, so any chunk of them may run."""

    def __init__(self, channels: int, heads: int, head_dim: int, context_dim: int, dropout: float = 0.0):
        super().__init__()
        inner = heads * head_dim
        self.norm = nn.GroupNorm(32, channels, eps=1e-6)
        self.proj_in = nn.Linear(channels, inner)
        self.transformer_blocks = nn.ModuleList([TransformerBlock(inner, heads, head_dim, context_dim, dropout)])
        self.proj_out = nn.Linear(inner, channels)

    def keys_values(self, context: Tensor) -> KeysValues:
        """Text [b, tokens, context_dim] as keys and values."""
        return self.transformer_blocks[0].attn2.keys_values(context)  # type: ignore[union-attr,operator]

    def begin(self, x: Tensor, chunks: Chunks = WHOLE) -> Tensor:
        """What does not see the text: frames [(b f), c, h, w] -> tokens [(b f), h w, inner] for `forward`."""
        return mapped(lambda frames: self._begin(x[frames]), self._pieces(x, chunks))

    def _begin(self, frames: Tensor) -> Tensor:
        return self.transformer_blocks[0].begin(self.proj_in(self.norm(frames).flatten(2).transpose(1, 2)))  # type: ignore[operator]

    @staticmethod
    def _pieces(x: Tensor, chunks: Chunks) -> Pieces:
        return chunks.pieces(len(x), ATTENTION_VALUES * x[0].numel())

    def forward(self, x: Tensor, context: KeysValues, chunks: Chunks = WHOLE, begun: Tensor | None = None) -> Tensor:
        """Frames [(b f), c, h, w] -> the same, overwritten unless gradients are wanted.

        begun: what `begin` made of x, if it was called before.
        """
        per_clip = len(x) // len(context.keys)

        def run(frames: slice) -> Tensor:
            tokens = self._begin(x[frames]) if begun is None else begun[frames].clone()
            tokens = self.transformer_blocks[0](tokens, _of_frames(context, frames, per_clip), chunks)
            return self.proj_out(tokens).transpose(1, 2).unflatten(2, x.shape[-2:])

        return added(x, run, self._pieces(x, chunks))


class PointwiseConv1d(nn.Conv1d):
    """The checkpoint's 1x1 Conv1d [o, i, 1], applied as the linear layer it is on [..., i]."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__(in_channels, out_channels, kernel_size=1)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight.squeeze(-1), self.bias)


class TemporalTransformer(nn.Module):
    """Attention among the frames of each pixel; both attentions are self-attention, without position encoding.

    The norm sees all frames; what follows does not mix pixels, so any chunk of them may run.
    """

    def __init__(self, channels: int, heads: int, head_dim: int, dropout: float = 0.0):
        super().__init__()
        inner = heads * head_dim
        self.norm = nn.GroupNorm(32, channels, eps=1e-6)
        self.proj_in = PointwiseConv1d(channels, inner)
        self.transformer_blocks = nn.ModuleList([TransformerBlock(inner, heads, head_dim, dropout=dropout)])
        self.proj_out = PointwiseConv1d(inner, channels)

    def forward(self, x: Tensor, frames: int, chunks: Chunks = WHOLE) -> Tensor:
        """Frames [(b f), c, h, w] -> the same, overwritten unless gradients are wanted."""
        clip = x.unflatten(0, (-1, frames)).flatten(3).transpose(1, 2)
        b, c, f, count = clip.shape
        normalised = clip_norm(self.norm, clip, chunks)

        def run(pixels: slice) -> Tensor:
            tokens = normalised(clip[..., pixels]).permute(0, 3, 2, 1)
            return self._along_time(tokens.flatten(0, 1), chunks).unflatten(0, (b, -1)).permute(0, 3, 2, 1)

        out = added(clip, run, chunks.pieces(count, ATTENTION_VALUES * b * c * f), dim=3)
        return out.transpose(1, 2).flatten().view(x.shape)

    def _along_time(self, tokens: Tensor, chunks: Chunks) -> Tensor:
        """Normalised pixels [n, f, c] -> what is added to them."""
        block = self.transformer_blocks[0]
        return self.proj_out(block(block.begin(self.proj_in(tokens)), chunks=chunks))  # type: ignore[operator]
