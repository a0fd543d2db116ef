"""Runs the blocks of the UNet in a pass.

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
    """The state that all layers of a pass share.

    emb: the time embedding, [b, emb_dim]; frames: f; budget: how many values a layer may hold; weights: brings each
    layer's weights; context: the text; cache, key: the cache for the deep levels' features, and this pass's key in it;
    motion: factor of what layers along time add.
    """

    emb: Tensor
    frames: int
    budget: ChunkBudget
    weights: Weights
    context: TextContext
    cache: DeepFeatureCache | None = None
    key: Hashable = None
    motion: float = 1.0


def layers_of(block: nn.Module) -> list[nn.Module]:
    """Return the layers of a block, in order."""
    return list(block) if isinstance(block, nn.ModuleList) else [block]


def go_down(blocks: list[list[nn.Module]], skips: list[Tensor], state: Pass) -> None:
    """Run each block on the last skip; its output is the next skip."""
    for block in blocks:
        skips.append(run_block(block, Handover(skips[-1]), state))


def go_up(blocks: list[list[nn.Module]], x: Handover, skips: list[Tensor], state: Pass) -> Tensor:
    """Run each block on the output of the one before and the last skip, which is removed."""
    for block in blocks:
        x.add(skips.pop())
        size = skips[-1].shape[-2:] if skips else ()
        # Other texts need the stem's output, too. It is the first skip, and therefore taken last.
        x = Handover(run_block(block, x, state, size, overwrite=len(skips) > 0))
    return x.take()[0]


def run_block(
    layers: list[nn.Module], x: Handover, state: Pass, size: tuple[int, ...] = (), *, overwrite: bool = False
) -> Tensor:
    """Run the layers of a block one after the other: [(b f), c, h, w] -> [(b f), c', h', w'].

    Args:
        layers: the block's layers.
        x: its input, followed by a skip if the block takes one.
        state: the state that all layers of the pass share.
        size: height and width after the block's upsampling, if it has one.
        overwrite: whether a ResBlock may overwrite the skip.
    """
    for layer in layers:
        with state.weights(layer):
            x = Handover(_run_layer(layer, x, state, size, overwrite=overwrite))
    return x.take()[0]


def _run_layer(layer: nn.Module, x: Handover, state: Pass, size: tuple[int, ...], *, overwrite: bool) -> Tensor:
    """Call a layer with the arguments that its kind needs."""
    arguments: tuple[Any, ...] = ()  # a convolution takes no others
    match layer:
        case ResBlock():
            return layer(x, state.emb, state.frames, state.budget, motion=state.motion, overwrite=overwrite)
        case SpatialTransformer():
            arguments = (state.context[layer], state.budget)
        case TemporalTransformer():
            arguments = (state.frames, state.budget, state.motion)
        case Upsample():
            arguments = (size, state.budget)
        case Downsample():
            arguments = (state.budget,)
    return layer(*x.take(), *arguments)
