"""Estimates how much of the device's memory weights and the merging of LoRAs take, from the weights' shapes."""

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..device import Place
from ..network.streamable import Streamable, tensors_of
from .lora_deltas import NO_DELTAS, Delta, Deltas, merge_size, split_by_part
from .plan import Plan
from .prefetcher import copies_ahead


def count_numbers(module: nn.Module) -> int:
    """Return how many numbers the module's weights have."""
    return sum(tensor.numel() for tensor in tensors_of(module).values())


def count_weights(module: Streamable, plan: Plan, place: Place, deltas: Deltas = NO_DELTAS) -> dict[nn.Module, int]:
    """Return how many numbers of a network's weights are on the device while each of its parts runs.

    These are all of the network's weights, or those of a part and the next one. Weights in 8 bits are counted as
    numbers of the place's precision that take as much memory, in addition to the weights that they are converted to.
    """
    parts = module.parts()
    if plan.is_resident:
        return dict.fromkeys(parts, count_numbers(module))
    stored = {part: _count_quantized(module, part, place.dtype) if plan.eight_bits else 0 for part in parts}
    if not plan.streamed:
        return {part: sum(stored.values()) + count_numbers(part) for part in parts}
    ahead, by_part = copies_ahead(place.device), split_by_part(module, parts, deltas)
    coming = {
        part: (stored[part] or _count_arriving(part, by_part[part], place.dtype)) if ahead else 0 for part in parts
    }
    return {
        part: count_numbers(part) + stored[part] + (coming[following] if following else 0)
        for part, following in itertools.zip_longest(parts, parts[1:])
    }


def _count_quantized(module: Streamable, part: nn.Module, dtype: torch.dtype) -> int:
    """Return how many numbers of this precision take as much memory as the part's weights in 8 bits."""
    if part in module.full_precision_parts():
        return count_numbers(part)
    numbers = 0
    for tensor in tensors_of(part).values():
        # The scales are in single precision.
        scales = -(-torch.float32.itemsize // dtype.itemsize) * len(tensor)
        numbers += tensor.numel() if tensor.ndim < 2 else -(-tensor.numel() // dtype.itemsize) + scales
    return numbers


def _count_arriving(part: nn.Module, deltas: Deltas, dtype: torch.dtype) -> int:
    """Return how many numbers of this precision take as much memory as the part's weights while they are copied.

    Weights to which something is added arrive in their file's precision.
    """
    return sum(
        tensor.numel() * (-(-tensor.element_size() // dtype.itemsize) if name in deltas else 1)
        for name, tensor in tensors_of(part).items()
    )


def estimate_merging(module: Streamable, plan: Plan, place: Place, deltas: Deltas) -> int:
    """Return how many bytes adding LoRAs to weights takes on the device, in addition to all weights there."""
    if not plan.eight_bits:
        ahead = plan.streamed and copies_ahead(place.device)
        parts = split_by_part(module, module.parts(), deltas) if plan.streamed else {module: deltas}
        return max(_estimate_arrival(part, added, place, ahead=ahead) for part, added in parts.items())
    # Weights are quantized in main memory, or on the device, where that takes another copy.
    each = 0 if plan.streamed else 2 * torch.float32.itemsize
    return max([0, *(each * merge_size(tensor, added).single for tensor, added in _pair_weights(module, deltas))])


def _estimate_arrival(part: nn.Module, deltas: Deltas, place: Place, *, ahead: bool) -> int:
    """Return the bytes that merging a part's weights one by one takes beyond what all of them take afterwards."""
    there = excess = 0
    for tensor, added in sorted(_pair_weights(part, deltas), key=lambda pair: -pair[0].numel()):
        weight, single = merge_size(tensor, added)
        arrived = tensor.element_size() * weight if ahead else 0
        there += place.dtype.itemsize * weight
        excess = max(excess, there + torch.float32.itemsize * single + arrived)
    return max(0, excess - place.dtype.itemsize * count_numbers(part))


def _pair_weights(module: nn.Module, deltas: Deltas) -> list[tuple[Tensor, Sequence[Delta]]]:
    tensors = tensors_of(module)
    return [(tensors[name], added) for name, added in deltas.items()]
