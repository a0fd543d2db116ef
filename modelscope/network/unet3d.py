"""UNet3D of ModelScope's text-to-video model: the network that predicts the noise in video latents."""

import itertools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from einops import rearrange
from torch import Tensor, nn

from ..config import UNetConfig
from .attention import KeysValues, SpatialTransformer, TemporalTransformer
from .blocks import Pass, TextContext, go_down, go_up, layers_of, run_block
from .deep_cache import DeepFeatureCache
from .handover import Handover
from .layers import Downsample, ResBlock, Upsample, timestep_embedding
from .slices import WHOLE, ChunkBudget, map_slices
from .streamable import Streamable


class PassOptions(NamedTuple):
    """Options of a pass. Apart from rounding, results depend only on the cache and on the motion strength.

    budget: how many values a layer may hold.
    batch_cfg: compute all texts in one batch, which takes more memory. Texts of different lengths are always computed
    one after the other.
    cache: replaces the deep levels if it has the features of all texts; else they are computed and put into it.
    motion: factor of what the layers along time add: 1 as trained, 0 makes each frame as if it were alone.
    """

    budget: ChunkBudget = WHOLE
    batch_cfg: bool = False
    cache: DeepFeatureCache | None = None
    motion: float = 1.0


ONE_BY_ONE = PassOptions()
"""One text after the other, without slices and without a cache."""


class UNet3D(Streamable):
    """The network. Attribute names and their order are the checkpoint's (1480 keys at full size)."""

    keeps_channels_last = True

    def __init__(self, config: UNetConfig):
        super().__init__()
        self.config = config
        dims = [config.dim * mult for mult in (1, *config.dim_mult)]
        emb_dim = config.dim * 4
        self.time_embed = nn.Sequential(nn.Linear(config.dim, emb_dim), nn.SiLU(), nn.Linear(emb_dim, emb_dim))
        stem = [
            nn.Conv2d(config.in_dim, config.dim, 3, padding=1),
            TemporalTransformer(config.dim, config.num_heads, config.head_dim, config.dropout),
        ]
        self.input_blocks = nn.ModuleList([nn.ModuleList(stem)])
        skips = [config.dim]
        for level, (dim_in, dim_out) in enumerate(itertools.pairwise(dims)):
            for i in range(config.num_res_blocks):
                self.input_blocks.append(self._make_block(dim_in if i == 0 else dim_out, dim_out, level))
                skips.append(dim_out)
            if level < config.deepest:
                self.input_blocks.append(Downsample(dim_out))
                skips.append(dim_out)
        bottom = self._make_block(dims[-1], dims[-1], level=0)
        self.middle_block = nn.ModuleList([*bottom, ResBlock(dims[-1], emb_dim, dims[-1], config.dropout)])
        self.output_blocks = nn.ModuleList()
        channels = dims[-1]
        for level, dim_out in reversed(list(enumerate(dims[1:]))):
            for i in range(config.num_res_blocks + 1):
                block = self._make_block(channels + skips.pop(), dim_out, level)
                if level > 0 and i == config.num_res_blocks:
                    block.append(Upsample(dim_out))
                self.output_blocks.append(block)
                channels = dim_out
        self.out = nn.Sequential(
            nn.GroupNorm(32, channels), nn.SiLU(), nn.Conv2d(channels, config.out_dim, 3, padding=1)
        )

    def _make_block(self, dim_in: int, dim_out: int, level: int) -> nn.ModuleList:
        config = self.config
        block = nn.ModuleList([ResBlock(dim_in, config.dim * 4, dim_out, config.dropout)])
        if config.attends_at(level):
            heads, head_dim = dim_out // config.head_dim, config.head_dim
            block.append(SpatialTransformer(dim_out, heads, head_dim, config.context_dim, config.dropout))
            block.append(TemporalTransformer(dim_out, heads, head_dim, config.dropout))
        return block

    def parts(self) -> list[nn.Module]:
        """Return the layers in the order of a pass; the weights of each are brought separately."""
        blocks = (*self.input_blocks, self.middle_block, *self.output_blocks)
        return [self.time_embed, *itertools.chain(*map(layers_of, blocks)), self.out]

    def full_precision_parts(self) -> list[nn.Module]:
        """Return the first and the last layers, whose errors would affect everything."""
        return [self.time_embed, *layers_of(self.input_blocks[0]), self.out]

    def text_context(self, text: Tensor) -> TextContext:
        """Turn text features [b, tokens, context_dim] into keys and values: once per prompt, not per frame and step."""
        layers = [module for module in self.modules() if isinstance(module, SpatialTransformer)]
        return {layer: self._keys_values(layer, text) for layer in layers}

    def _keys_values(self, layer: SpatialTransformer, text: Tensor) -> KeysValues:
        with self.weights(layer):
            return layer.keys_values(text)

    def forward(self, x: Tensor, timesteps: Tensor, context: TextContext, budget: ChunkBudget = WHOLE) -> Tensor:
        """Predict the noise in latents under one text, as `predict_noise` does."""
        return self.predict_noise(x, timesteps, [context], PassOptions(budget))[0]

    def predict_noise(
        self,
        x: Tensor,
        timesteps: Tensor,
        contexts: Sequence[TextContext],
        options: PassOptions = ONE_BY_ONE,
        condition: Tensor | None = None,
    ) -> list[Tensor]:
        """Predict the noise in latents under each text. Layers before the first that sees the text run only once.

        Args:
            x: latents [b, in_dim, f, h, w], of any h and w.
            timesteps: [b], from 0 to 999, fractions allowed.
            contexts: the texts, from `text_context`, each with batch size b.
            options: how to compute.
            condition: [1, dim], added to the sinusoids of the timesteps (T2V-Turbo's guidance scale).

        Returns the noise for each text, [b, out_dim, f, h, w].
        """
        emb = self._embed(timesteps, condition, x.dtype)
        state = Pass(emb, x.shape[2], options.budget, self.weights, context={}, motion=options.motion)
        prepared, count = self._prepare(x, state), len(contexts)
        batch_cfg = options.batch_cfg and _are_equally_long(contexts)
        if batch_cfg:
            contexts, state = [_join(contexts)], state._replace(emb=torch.cat([state.emb] * count))
            prepared = Handover(*[torch.cat([part] * count) for part in prepared.take()])
        keys = [(number, len(contexts), count, x.shape, x.dtype) for number in range(len(contexts))]
        if options.cache and not options.cache.has(keys):
            # Features of other texts or steps would only take memory.
            options.cache.clear()
        noise = [
            self._finish(given, state._replace(context=context, cache=options.cache, key=key))
            for given, context, key in zip(_share(prepared, len(contexts)), contexts, keys, strict=True)
        ]
        return list(noise[0].chunk(count)) if batch_cfg else noise

    def _embed(self, timesteps: Tensor, condition: Tensor | None, dtype: torch.dtype) -> Tensor:
        """Return the time embedding [b, emb_dim] of timesteps [b]."""
        sinusoids = timestep_embedding(timesteps, self.config.dim)
        if condition is not None:
            sinusoids = sinusoids + condition.to(sinusoids)
        with self.weights(self.time_embed):
            return self.time_embed(sinusoids.to(dtype))

    def _prepare(self, x: Tensor, state: Pass) -> Handover:
        """Run the layers that do not see the text on latents [b, in_dim, f, h, w].

        Return the stem's output, the first ResBlock's output, and the first transformer's tokens, if there is one.
        """
        frames = Handover(rearrange(x, "b c f h w -> (b f) c h w").contiguous())
        stem = run_block(layers_of(self.input_blocks[0]), frames, state)
        res_block, *transformers = layers_of(self.input_blocks[1])
        h = run_block([res_block], Handover(stem), state)
        if not transformers:
            return Handover(stem, h)
        spatial = transformers[0]
        assert isinstance(spatial, SpatialTransformer)
        with self.weights(spatial):
            return Handover(stem, h, spatial.prepare(h, state.budget))

    def _resume(self, prepared: Handover, state: Pass) -> list[Tensor]:
        """Run the rest of the first block; return the first two skips: the stem's output and the block's."""
        stem, h, *tokens = prepared.take()
        layers = layers_of(self.input_blocks[1])[1:]
        if tokens:
            spatial = layers.pop(0)
            with self.weights(spatial):
                h = spatial(h, state.context[spatial], state.budget, tokens.pop())
        return [stem, run_block(layers, Handover(h), state)]

    def _finish(self, prepared: Handover, state: Pass) -> Tensor:
        """Run the layers that see the text, from the results of `_prepare` to the noise [b, out_dim, f, h, w]."""
        blocks = self._blocks
        skips = self._resume(prepared, state)
        go_down(blocks.down, skips, state)
        h = go_up(blocks.up, Handover(self._deep_features(skips, state)), skips, state)
        with self.weights(self.out):
            noise = map_slices(lambda part: self.out(h[part]), state.budget.slices(len(h), 3 * h[0].numel()))
        return rearrange(noise, "(b f) c h w -> b c f h w", f=state.frames)

    def _deep_features(self, skips: list[Tensor], state: Pass) -> Tensor:
        """Return the output of the levels below the first for the last skip, from the cache if it is there."""
        cached = state.cache.get(state.key) if state.cache else None
        if cached is not None:
            return cached
        blocks = self._blocks
        go_down(blocks.deep_down, skips, state)
        h = Handover(run_block(blocks.middle, Handover(skips[-1]), state))
        features = go_up(blocks.deep_up, h, skips, state)
        if state.cache:
            state.cache.put(state.key, features)
        return features

    @property
    def _blocks(self) -> "_Blocks":
        down, up = ([layers_of(block) for block in side] for side in (self.input_blocks, self.output_blocks))
        shallow = self.config.num_res_blocks + 1
        return _Blocks(down[2:shallow], down[shallow:], layers_of(self.middle_block), up[:-shallow], up[-shallow:])


class _Blocks(NamedTuple):
    """The layers of the blocks that see the text, in the order of a pass.

    down and up are the first level, without the first block; deep_down and deep_up are all levels below it.
    """

    down: list[list[nn.Module]]
    deep_down: list[list[nn.Module]]
    middle: list[nn.Module]
    deep_up: list[list[nn.Module]]
    up: list[list[nn.Module]]


def _are_equally_long(contexts: Sequence[TextContext]) -> bool:
    return len({next(iter(context.values())).keys.shape for context in contexts}) == 1


def _join(contexts: Sequence[TextContext]) -> TextContext:
    """Join n texts of batch size b into one of batch size n b."""
    return {
        layer: KeysValues(*map(torch.cat, zip(*(context[layer] for context in contexts), strict=True)))
        for layer in contexts[0]
    }


def _share(prepared: Handover, count: int) -> Iterator[Handover]:
    """Yield the results of `_prepare` `count` times, with copies of what gets overwritten in all but the last."""
    stem, h, *tokens = prepared.take()
    for _ in range(count - 1):
        yield Handover(stem, h.clone(), *tokens)
    last = Handover(stem, h, *tokens)
    del stem, h, tokens
    yield last
