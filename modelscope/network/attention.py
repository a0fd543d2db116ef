"""Attention, and the transformers built from it: spatial (with attention to the text) and temporal."""

from typing import NamedTuple

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from .clip_norm import measure_clip_norm, normalise_frames
from .clips import to_clip, to_frames
from .linear import Linear, linear
from .slices import WHOLE, ChunkBudget, Slices, add_into, add_slices, map_slices, repeat_rows, scale_results

# CUDA's fused kernels put batch and heads into grid dimensions of at most 65,535.
MAX_GRID = 65_535
FUSED = ("cpu", "cuda", "xpu", "meta")
"""Kinds of devices whose attention does not hold a score for every pair of query and key. Some old cards of these kinds
do; there memory runs out, and a smaller plan takes over."""
SCORES = 32_000_000
"""Maximum number of scores that the other devices hold at once."""
ATTENTION_VALUES, FF_VALUES = 7, 9
"""Numbers that a transformer and a feed-forward network hold per number of their input. Inside, the latter is first
eight times as wide, then four times."""


class KeysValues(NamedTuple):
    """Keys and values of one cross-attention, each [b, heads, tokens, head_dim]."""

    keys: Tensor
    values: Tensor

    def to(self, dtype: torch.dtype) -> "KeysValues":
        """Return the same keys and values in another precision."""
        return KeysValues(self.keys.to(dtype), self.values.to(dtype))


def scaled_dot_product(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Compute attention (Vaswani et al., 2017), in slices of the batch that every device's kernels accept.

    q, k, v: [n, heads, length, head_dim]; k and v may have another length than q. Returns q's shape.
    """
    fused = q.device.type in FUSED
    per_query = q.shape[1] * k.shape[2]
    rows = MAX_GRID if fused else max(1, SCORES // (per_query * q.shape[2]))
    if len(q) > rows:
        parts = zip(q.split(rows), k.split(rows), v.split(rows), strict=True)
        return torch.cat([scaled_dot_product(*part) for part in parts])
    queries = q.shape[2] if fused else max(1, SCORES // (per_query * len(q)))
    return map_slices(
        lambda part: F.scaled_dot_product_attention(q[:, :, part], k, v),
        ChunkBudget(queries).slices(q.shape[2], 1),
        dim=2,
    )


class Attention(nn.Module):
    """Multi-head attention with the checkpoint's names: to_q, to_k and to_v without bias, to_out.0 with bias."""

    def __init__(self, dim: int, heads: int, head_dim: int, context_dim: int | None = None, dropout: float = 0.0):
        super().__init__()
        inner = heads * head_dim
        self.heads = heads
        self.to_q = Linear(dim, inner, bias=False)
        self.to_k = Linear(context_dim or dim, inner, bias=False)
        self.to_v = Linear(context_dim or dim, inner, bias=False)
        self.to_out = nn.Sequential(Linear(inner, dim), nn.Dropout(dropout))

    def keys_values(self, context: Tensor) -> KeysValues:
        """Project a context [n, tokens, context_dim] once, for use in every frame and every step."""
        return KeysValues(self._split_heads(self.to_k(context)), self._split_heads(self.to_v(context)))

    def forward(self, x: Tensor, context: KeysValues | None = None) -> Tensor:
        """Attend to the context, or to x itself if there is none.

        x: [n, length, dim]; context: its batch size divides n. Returns x's shape.
        """
        q = self._split_heads(self.to_q(x))
        k, v = context or self.keys_values(x)
        if len(k) != len(q):
            k, v = repeat_rows(k, len(q)), repeat_rows(v, len(q))
        # No einops here and in _split_heads: most calls are here, and would take over 1 % of a step in a small network.
        out = scaled_dot_product(q, k, v).transpose(1, 2).flatten(2)  # [n, length, (heads head_dim)]
        return self.to_out(out)

    def _split_heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)  # [n, heads, length, head_dim]


def _select_frames(context: KeysValues, frames: slice, per_clip: int) -> KeysValues:
    """Select keys and values for some frames [(b f)]: one entry if all belong to the same clip, else one per frame."""
    first, last = frames.start // per_clip, (frames.stop - 1) // per_clip
    if first == last:
        return KeysValues(context.keys[first : first + 1], context.values[first : first + 1])
    # Slices rather than a list of indices, which would become a tensor, for which a card waits.
    count = len(context.keys) * per_clip
    return KeysValues(*(repeat_rows(x, count)[frames] for x in context))


class GEGLU(nn.Module):
    """Gated linear unit (Shazeer, 2020): the first half is the value, the second the gate, with an exact GELU."""

    def __init__(self, dim: int, inner: int):
        super().__init__()
        self.proj = Linear(dim, inner * 2)

    def forward(self, x: Tensor) -> Tensor:
        """[..., dim] -> [..., inner]."""
        if torch.is_grad_enabled():
            value, gate = self.proj(x).chunk(2, dim=-1)
            return value * F.gelu(gate)
        # The halves are computed separately, so that both are contiguous and can be overwritten.
        (value_weight, gate_weight), (value_bias, gate_bias) = self.proj.weight.chunk(2), self.proj.bias.chunk(2)
        gate = linear(x, gate_weight, gate_bias)
        gate = torch.ops.aten.gelu_(gate) if gate.device.type in FUSED else F.gelu(gate)
        return gate.mul_(linear(x, value_weight, value_bias))


class FeedForward(nn.Module):
    """A network that is applied to every token, with a hidden layer four times as wide."""

    def __init__(self, dim: int, dropout: float = 0.0):
        super().__init__()
        self.net = nn.Sequential(GEGLU(dim, dim * 4), nn.Dropout(dropout), Linear(dim * 4, dim))

    def forward(self, x: Tensor) -> Tensor:
        """[..., dim] -> the same shape."""
        return self.net(x)


class TransformerBlock(nn.Module):
    """Self-attention, then attention to the text (in temporal transformers self-attention again), then feed-forward.

    The first self-attention does not see the text, so different texts can share its result. It is a separate method.
    """

    def __init__(self, dim: int, heads: int, head_dim: int, context_dim: int | None = None, dropout: float = 0.0):
        super().__init__()
        self.attn1 = Attention(dim, heads, head_dim, dropout=dropout)
        self.ff = FeedForward(dim, dropout)
        self.attn2 = Attention(dim, heads, head_dim, context_dim, dropout)
        self.norm1 = nn.LayerNorm(dim)
        self.norm2 = nn.LayerNorm(dim)
        self.norm3 = nn.LayerNorm(dim)

    def attend_to_itself(self, x: Tensor) -> Tensor:
        """Run the first self-attention: [n, length, dim] -> the same shape, in x itself unless gradients are needed."""
        return add_into(x, self.attn1(self.norm1(x)))

    def forward(self, x: Tensor, context: KeysValues | None = None, budget: ChunkBudget = WHOLE) -> Tensor:
        """Run the rest of the block.

        Args:
            x: the result of `attend_to_itself`, [n, length, dim]; overwritten unless gradients are needed.
            context: the text, whose batch size divides n; None for x itself.
            budget: how many values the feed-forward network may hold at once.
        """
        x = add_into(x, self.attn2(self.norm2(x), context))
        tokens = x.flatten(0, 1)  # [(n length), dim]
        slices = budget.slices(len(tokens), FF_VALUES * tokens.shape[1])
        return add_slices(tokens, lambda part: self.ff(self.norm3(tokens[part])), slices).unflatten(0, x.shape[:2])


class SpatialTransformer(nn.Module):
    """Attention among the pixels of each frame, and to the text.

    Frames do not mix, so any slice of them can be computed separately.
    """

    def __init__(self, channels: int, heads: int, head_dim: int, context_dim: int, dropout: float = 0.0):
        super().__init__()
        inner = heads * head_dim
        self.norm = nn.GroupNorm(32, channels, eps=1e-6)
        self.proj_in = Linear(channels, inner)
        self.transformer_blocks = nn.ModuleList([TransformerBlock(inner, heads, head_dim, context_dim, dropout)])
        self.proj_out = Linear(inner, channels)

    def keys_values(self, context: Tensor) -> KeysValues:
        """Project a text [b, tokens, context_dim] once, for use in every frame and every step."""
        return self.transformer_blocks[0].attn2.keys_values(context)  # type: ignore[union-attr,operator]

    def prepare(self, x: Tensor, budget: ChunkBudget = WHOLE) -> Tensor:
        """Run the layers that do not see the text: frames [(b f), c, h, w] -> tokens [(b f), (h w), inner]."""
        return map_slices(lambda frames: self._prepare(x[frames]), self._slices(x, budget))

    def _prepare(self, frames: Tensor) -> Tensor:
        tokens = self.proj_in(rearrange(normalise_frames(self.norm, frames), "n c h w -> n (h w) c"))
        return self.transformer_blocks[0].attend_to_itself(tokens)  # type: ignore[operator]

    @staticmethod
    def _slices(x: Tensor, budget: ChunkBudget) -> Slices:
        return budget.slices(len(x), ATTENTION_VALUES * x[0].numel())

    def forward(
        self, x: Tensor, context: KeysValues, budget: ChunkBudget = WHOLE, prepared: Tensor | None = None
    ) -> Tensor:
        """Return x plus the transformer's output.

        Args:
            x: frames [(b f), c, h, w]; overwritten unless gradients are needed.
            context: the text, with batch size b.
            budget: how many values to hold at once.
            prepared: the result of `prepare` for x, if it was called before; not overwritten.
        """
        per_clip = len(x) // len(context.keys)

        def run(frames: slice) -> Tensor:
            tokens = self._prepare(x[frames]) if prepared is None else prepared[frames].clone()
            tokens = self.transformer_blocks[0](tokens, _select_frames(context, frames, per_clip), budget)
            return rearrange(self.proj_out(tokens), "n (h w) c -> n c h w", h=x.shape[2])

        return add_slices(x, run, self._slices(x, budget))


class PointwiseConv1d(nn.Conv1d):
    """The checkpoint's 1x1 Conv1d [o, i, 1], computed as a linear layer."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__(in_channels, out_channels, kernel_size=1)

    def forward(self, x: Tensor) -> Tensor:
        """[..., i] -> [..., o]."""
        return linear(x, self.weight.squeeze(-1), self.bias)


class TemporalTransformer(nn.Module):
    """Attention among the frames of each pixel; both attentions are self-attention, without position encoding.

    The norm sees all frames and pixels. The layers after it do not mix pixels, so any slice of them can be computed
    separately.
    """

    def __init__(self, channels: int, heads: int, head_dim: int, dropout: float = 0.0):
        super().__init__()
        inner = heads * head_dim
        self.norm = nn.GroupNorm(32, channels, eps=1e-6)
        self.proj_in = PointwiseConv1d(channels, inner)
        self.transformer_blocks = nn.ModuleList([TransformerBlock(inner, heads, head_dim, dropout=dropout)])
        self.proj_out = PointwiseConv1d(inner, channels)

    def forward(self, x: Tensor, frames: int, budget: ChunkBudget = WHOLE, motion: float = 1.0) -> Tensor:
        """Return x plus the transformer's output.

        Args:
            x: frames [(b f), c, h, w]; overwritten unless gradients are needed.
            frames: f.
            budget: how many values to hold at once.
            motion: factor of the output.
        """
        clip = to_clip(x, frames)
        b, c, f, pixels = clip.shape
        normalise = measure_clip_norm(self.norm, clip, budget)

        def run(part: slice) -> Tensor:
            # Contiguous: CPUs multiply non-contiguous tokens slowly.
            tokens = rearrange(normalise(clip[..., part]), "b c f p -> (b p) f c").contiguous()
            return rearrange(self._attend(tokens, budget), "(b p) f c -> b c f p", b=b)

        out = add_slices(clip, scale_results(run, motion), budget.slices(pixels, ATTENTION_VALUES * b * c * f), dim=3)
        return to_frames(out, like=x)

    def _attend(self, tokens: Tensor, budget: ChunkBudget) -> Tensor:
        """Return the transformer's output for normalised pixels [n, f, c]."""
        block = self.transformer_blocks[0]
        return self.proj_out(block(block.attend_to_itself(self.proj_in(tokens)), budget=budget))  # type: ignore[operator]
