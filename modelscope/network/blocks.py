"""Blocks of the UNet, and how a pass runs them.

Activations are frames [(b f), c, h, w]: b clips, or texts times clips, of f frames each. On the way down every block's
output is a skip, which the block of the same size takes on the way up.
"""

from collections.abc import Hashable, Mapping
from typing import Any, NamedTuple

from torch import Tensor, nn

from .attention import KeysValues, SpatialTransformer, TemporalTransformer
from .deep_cache import DeepFeatureCache
from .handover import Handover
from .layers import Downsample, ResBlock, Upsample
from .slices import ChunkBudget
from .streamable import Weights

TextContext = Mapping[nn.Module, KeysValues]
"""A prompt as keys and values, for each SpatialTransformer of the network."""


class Pass(NamedTuple):
    """What the layers of one pass share.

    emb: the time embedding, [b, emb_dim]; frames: f; budget: how many values a layer may hold; weights: brings each
    layer's; context: the text; cache, key: where the deep levels' features are kept.
    """

    emb: Tensor
    frames: int
    budget: ChunkBudget
    weights: Weights
    context: TextContext
    cache: DeepFeatureCache | None = None
    key: Hashable = None


def layers_of(block: nn.Module) -> list[nn.Module]:
    """The layers of a block, in order."""
    return list(block) if isinstance(block, nn.ModuleList) else [block]


def go_down(blocks: list[list[nn.Module]], skips: list[Tensor], state: Pass) -> None:
    """Run each block on the last skip; its output is the next skip."""
    for block in blocks:
        skips.append(run_block(block, Handover(skips[-1]), state))


def go_up(blocks: list[list[nn.Module]], x: Handover, skips: list[Tensor], state: Pass) -> Tensor:
    """Run each block on what the one before returned and the last skip, which goes."""
    for block in blocks:
        x.add(skips.pop())
        size = skips[-1].shape[-2:] if skips else ()
        # The stem's output, which is the first skip and comes last, serves other texts, too.
        x = Handover(run_block(block, x, state, size, overwrite=len(skips) > 0))
    return x.take()[0]


def run_block(
    layers: list[nn.Module], x: Handover, state: Pass, size: tuple[int, ...] = (), *, overwrite: bool = False
) -> Tensor:
    """Run the layers of a block one after the other: [(b f), c, h, w] -> [(b f), c', h', w'].

    Args:
        layers: of the block.
        x: its input, and a skip, where it takes one.
        state: what the pass shares.
        size: height and width after the block's upsampling, if it has one.
        overwrite: a ResBlock may overwrite the skip.
    """
    for layer in layers:
        with state.weights(layer):
            x = Handover(_run_layer(layer, x, state, size, overwrite=overwrite))
    return x.take()[0]


def _run_layer(layer: nn.Module, x: Handover, state: Pass, size: tuple[int, ...], *, overwrite: bool) -> Tensor:
    """Call a layer with what its kind needs."""
    arguments: tuple[Any, ...] = ()  # a convolution's
    match layer:
        case ResBlock():
            return layer(x, state.emb, state.frames, state.budget, overwrite=overwrite)
        case SpatialTransformer():
            arguments = (state.context[layer], state.budget)
        case TemporalTransformer():
            arguments = (state.frames, state.budget)
        case Upsample():
            arguments = (size, state.budget)
        case Downsample():
            arguments = (state.budget,)
    return layer(*x.take(), *arguments)
