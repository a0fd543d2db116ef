"""UNet3D of ModelScope's text-to-video model: the network that predicts the noise in video latents."""

import itertools
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..config import UNetConfig
from .attention import KeysValues, SpatialTransformer, TemporalTransformer
from .chunks import WHOLE, Chunks, mapped
from .layers import Downsample, ResBlock, Upsample, timestep_embedding
from .streamable import Streamable, Weights

TextContext = list[KeysValues]
"""The prompt as keys and values, one entry per spatial transformer in the order they run."""


class DeepLevels:
    """What the levels below the first returned, for passes that shall not run them again (Ma et al., 2023: DeepCache).

    Steps that follow each other differ little there. Holds a tensor for each time that a pass runs them.
    """

    def __init__(self) -> None:
        self._results: list[Tensor] = []
        self._layout: tuple[Any, ...] = ()

    def forget(self) -> None:
        """Let the next pass run them."""
        self._results, self._layout = [], ()

    def known(self, times: int, *layout: Any) -> bool:
        """Whether a pass of this layout, which would run them so many times, need not. If not, it has to `keep`."""
        if self._layout != (times, *layout) or len(self._results) != times:
            self._results, self._layout = [], (times, *layout)
        return bool(self._results)

    def keep(self, result: Tensor) -> None:
        """Of the next time."""
        self._results.append(result)

    def __getitem__(self, time: int) -> Tensor:
        return self._results[time]


class Pass(NamedTuple):
    """What the layers of one pass share. begun: holds what the first spatial transformer need not do again."""

    emb: Tensor
    frames: int
    chunks: Chunks
    weights: Weights
    context: Iterator[KeysValues]
    begun: list[Tensor]


class UNet3D(Streamable):
    """Attribute names and their order are the checkpoint's (1480 keys at full size)."""

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
                self.input_blocks.append(self._stage(dim_in if i == 0 else dim_out, dim_out, level))
                skips.append(dim_out)
            if level < config.deepest:
                self.input_blocks.append(Downsample(dim_out))
                skips.append(dim_out)
        bottom = self._stage(dims[-1], dims[-1], level=0)
        self.middle_block = nn.ModuleList([*bottom, ResBlock(dims[-1], emb_dim, dims[-1], config.dropout)])
        self.output_blocks = nn.ModuleList()
        channels = dims[-1]
        for level, dim_out in reversed(list(enumerate(dims[1:]))):
            for i in range(config.num_res_blocks + 1):
                stage = self._stage(channels + skips.pop(), dim_out, level)
                if level > 0 and i == config.num_res_blocks:
                    stage.append(Upsample(dim_out))
                self.output_blocks.append(stage)
                channels = dim_out
        self.out = nn.Sequential(
            nn.GroupNorm(32, channels), nn.SiLU(), nn.Conv2d(channels, config.out_dim, 3, padding=1)
        )

    def _stage(self, dim_in: int, dim_out: int, level: int) -> nn.ModuleList:
        config = self.config
        stage = nn.ModuleList([ResBlock(dim_in, config.dim * 4, dim_out, config.dropout)])
        if config.attends_at(level):
            heads, head_dim = dim_out // config.head_dim, config.head_dim
            stage.append(SpatialTransformer(dim_out, heads, head_dim, config.context_dim, config.dropout))
            stage.append(TemporalTransformer(dim_out, heads, head_dim, config.dropout))
        return stage

    def parts(self) -> list[nn.Module]:
        """What brings its weights for itself, in the order of a pass."""
        blocks = (*self.input_blocks, self.middle_block, *self.output_blocks)
        return [self.time_embed, *itertools.chain(*map(modules_of, blocks)), self.out]

    def delicate(self) -> list[nn.Module]:
        """The first layers and the last, of which errors go into everything."""
        return [self.time_embed, *modules_of(self.input_blocks[0]), self.out]

    def text_context(self, text: Tensor) -> TextContext:
        """Text features [b, tokens, context_dim] as keys and values: once per prompt, not per frame and step."""
        return [self._keys_values(module, text) for module in self.modules() if isinstance(module, SpatialTransformer)]

    def _keys_values(self, module: SpatialTransformer, text: Tensor) -> KeysValues:
        with self.weights(module):
            return module.keys_values(text)

    def forward(self, x: Tensor, timesteps: Tensor, context: TextContext, chunks: Chunks = WHOLE) -> Tensor:
        """Predict the noise in latents.

        x: [b, c, f, h, w], any h and w; timesteps: [b], fractions allowed; context: from `text_context`, batch b.
        Returns [b, out_dim, f, h, w].
        """
        return self.noises(x, timesteps, [context], chunks)[0]

    def noises(  # noqa: PLR0913 - the last three are named where they are given
        self,
        x: Tensor,
        timesteps: Tensor,
        contexts: list[TextContext],
        chunks: Chunks = WHOLE,
        *,
        together: bool = False,
        deep: DeepLevels | None = None,
        condition: Tensor | None = None,
    ) -> list[Tensor]:
        """`forward` under each of the contexts; the layers before the first one that sees the text run only once.

        together: the others run on one batch for all contexts, which holds more; else, and for contexts of different
        lengths, for one after the other. deep: used where it holds results for all contexts, else filled.
        condition: [1, dim], what the network hears beside the timesteps.
        """
        heard = timestep_embedding(timesteps, self.config.dim)
        heard = heard if condition is None else heard + condition.to(heard)
        with self.weights(self.time_embed):
            emb = self.time_embed(heard.to(x.dtype))
        start = self._start(x, Pass(emb, x.shape[2], chunks, self.weights, iter(()), []))
        count = len(contexts)
        together = together and len({context[0].keys.shape for context in contexts}) == 1
        if together:
            contexts, emb = [_joined(contexts)], torch.cat([emb] * count)
            start = [torch.cat([part] * count) for part in start]
        known = deep and deep.known(len(contexts), count, x.shape, x.dtype)
        noises = []
        for number, context in enumerate(contexts):
            given = start if number == len(contexts) - 1 else [start[0], start[1].clone(), *start[2:]]
            state = Pass(emb, x.shape[2], chunks, self.weights, iter(context), [])
            noises.append(self._finish(given, state, deep, deep[number] if deep and known else None))
        return list(noises[0].chunk(count)) if together else noises

    def _start(self, x: Tensor, state: Pass) -> list[Tensor]:
        """What does not see the text: the stem's output, the first block's, and its attended tokens, if it has any."""
        stem = _run(modules_of(self.input_blocks[0]), [x.transpose(1, 2).flatten(0, 1).contiguous()], state)
        first, *transformers = modules_of(self.input_blocks[1])
        held = _run([first], [stem], state)
        if not transformers:
            return [stem, held]
        spatial = transformers[0]
        assert isinstance(spatial, SpatialTransformer)
        with self.weights(spatial):
            return [stem, held, spatial.begin(held, state.chunks)]

    def _finish(
        self, start: list[Tensor], state: Pass, deep: DeepLevels | None = None, result: Tensor | None = None
    ) -> Tensor:
        """The rest. start: emptied, so that what nobody else holds is freed as soon as it may be.

        result: the deep levels', if they need not run; deep: where it is kept otherwise.
        """
        skips, held = [start.pop(0)], [start.pop(0)]
        while start:
            state.begun.append(start.pop())
        blocks = self._blocks
        _down([blocks.down[1][1:], *blocks.down[2:]], held, skips, state)
        if result is None:
            _down(blocks.deep_down, held, skips, state)
            held = [_run(blocks.middle, held, state)]
            _up(blocks.deep_up, held, skips, state)
            if deep:
                deep.keep(held[0])
        else:
            held = [result]
            for _ in filter(_attends_to_text, itertools.chain(*blocks.deep_down, blocks.middle, *blocks.deep_up)):
                next(state.context)
        _up(blocks.up, held, skips, state)
        h = held.pop()
        with self.weights(self.out):
            noise = mapped(lambda part: self.out(h[part]), state.chunks.pieces(len(h), 3 * h[0].numel()))
        return noise.unflatten(0, (-1, state.frames)).transpose(1, 2)

    @property
    def _blocks(self) -> "_Blocks":
        down, middle, up = (
            [modules_of(block) for block in side]
            for side in (self.input_blocks, [self.middle_block], self.output_blocks)
        )
        shallow = self.config.num_res_blocks + 1
        return _Blocks(down[:shallow], down[shallow:], middle[0], up[:-shallow], up[-shallow:])


class _Blocks(NamedTuple):
    """The layers of the blocks in the order of a pass: those of the first level, and the deep ones between them."""

    down: list[list[nn.Module]]
    deep_down: list[list[nn.Module]]
    middle: list[nn.Module]
    deep_up: list[list[nn.Module]]
    up: list[list[nn.Module]]


def _attends_to_text(module: nn.Module) -> bool:
    return isinstance(module, SpatialTransformer)


def _down(blocks: list[list[nn.Module]], held: list[Tensor], skips: list[Tensor], state: Pass) -> None:
    """Blocks whose outputs are skips, too. held: the one tensor that goes in and comes out."""
    for block in blocks:
        held[:] = [_run(block, held, state)]
        skips.append(held[0])


def _up(blocks: list[list[nn.Module]], held: list[Tensor], skips: list[Tensor], state: Pass) -> None:
    """Blocks that take a skip each. held: as for `_down`."""
    for block in blocks:
        held.append(skips.pop())
        # The stem's output, the last of them, serves other contexts, too.
        size = skips[-1].shape[-2:] if skips else ()
        held[:] = [_run(block, held, state, size, overwrite=len(skips) > 0)]


def _joined(contexts: list[TextContext]) -> TextContext:
    """Several contexts as one of a larger batch."""
    return [KeysValues(*map(torch.cat, zip(*layer, strict=True))) for layer in zip(*contexts, strict=True)]


def modules_of(block: nn.Module) -> list[nn.Module]:
    """The layers of a block."""
    return list(block) if isinstance(block, nn.ModuleList) else [block]


def _run(
    block: list[nn.Module], inputs: list[Tensor], state: Pass, size: tuple[int, ...] = (), *, overwrite: bool = False
) -> Tensor:
    """One block. inputs: emptied, so that what nobody else holds is freed as soon as it may be.

    size: height and width after the block's upsampling, if it has one. overwrite: of its last input, ResBlock's.
    """
    for module in block:
        with state.weights(module):
            x = _called(module, inputs, state, size, overwrite=overwrite)
        inputs.append(x)
        del x
    return inputs.pop()


def _called(module: nn.Module, inputs: list[Tensor], state: Pass, size: tuple[int, ...], *, overwrite: bool) -> Tensor:
    """What the layer makes of its inputs."""
    chunks = state.chunks
    arguments: tuple[Any, ...]
    match module:
        case ResBlock():
            return module(inputs, state.emb, state.frames, chunks, overwrite=overwrite)
        case SpatialTransformer():
            begun = [state.begun.pop()] if state.begun else []
            arguments = (next(state.context), chunks, *begun)
        case TemporalTransformer():
            arguments = (state.frames, chunks)
        case Upsample():
            arguments = (size, chunks)
        case Downsample():
            arguments = (chunks,)
        case _:
            arguments = ()
    return module(inputs.pop(), *arguments)
