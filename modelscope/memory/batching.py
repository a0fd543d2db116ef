"""Weighs whether a CPU should run both guidance passes as one batch.

A pass takes time for its matrix products, and for loading the weights into the caches and rearranging them. One batch
loads the weights once for both passes, but its activations are twice as large and leave the caches sooner. With few
positions per weight the weights matter more, with many the activations.
"""

from collections.abc import Iterable

from torch import nn

from ..network.layers import Downsample
from ..network.unet3d import UNet3D
from .estimate import Clip
from .estimate_weights import count_numbers

BATCHED_BELOW = 1000
"""Positions per weight at which one batch still gains 3 % of a step; at 200 it gains 23 %, at 1,800 next to nothing."""


def is_quicker_batched(unet: UNet3D, clip: Clip) -> bool:
    """Return whether a CPU computes both guidance passes sooner as one batch. clip: size of the latents."""
    return positions_per_weight(unet, clip) < BATCHED_BELOW


def positions_per_weight(unet: UNet3D, clip: Clip) -> float:
    """Return how many positions each weight is multiplied with in one pass, on average. clip: size of the latents."""
    blocks = _weigh_blocks(unet, clip)
    return _add_products(blocks) / sum(weights for _, weights in blocks)


def count_products(unet: UNet3D, clip: Clip) -> int:
    """Return how many products of a weight and a number one pass computes. clip: size of the latents."""
    return _add_products(_weigh_blocks(unet, clip))


def _add_products(blocks: Iterable[tuple[int, int]]) -> int:
    return sum(positions * weights for positions, weights in blocks)


def _weigh_blocks(unet: UNet3D, clip: Clip) -> list[tuple[int, int]]:
    """Return the number of positions and of weights of each block."""
    sizes = [clip]
    for block in unet.input_blocks[1:]:
        sizes.append(sizes[-1].halve() if isinstance(block, Downsample) else sizes[-1])
    blocks: list[nn.Module] = [*unet.input_blocks, unet.middle_block, *unet.output_blocks]
    positions = (size.pixels for size in (*sizes, sizes[-1], *reversed(sizes)))
    return list(zip(positions, map(count_numbers, blocks), strict=True))
