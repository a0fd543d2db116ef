"""Reads LoRA files that are lists without names, and finds the layers that they are for by order and shapes."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torch import Tensor

from ..errors import ModelError
from ..memory.lora_deltas import fits
from .pairs import Pair
from .targets import COND_PROJ, Target, Targets

_SUBSETS: dict[str, re.Pattern[str]] = {
    "whole network": re.compile(""),
    "spatial transformers": re.compile(r"(^|\.)attentions\."),
    "temporal transformers": re.compile(r"temp_attentions\.|transformer_in\."),
    "attention": re.compile(r"\.attn\d\.|\.ff\.net\.0\.proj|self_attn\."),
}
"""Sets of modules that trainers choose to train, as patterns for their names."""


def name_pairs(path: Path, tensors: list[Any], targets: Targets) -> list[Pair]:
    """Name the pairs in a list as Text-To-Video-Finetuning and T2V-Turbo write it.

    Args:
        path: The file, for errors.
        tensors: Up [rows, rank, ...], down [rank, columns, ...], up, down, ... in the order of diffusers' modules.
        targets: The model's targets.

    Raises:
        ModelError: The file is not such a list, or was made for another model.
    """
    if len(tensors) % 2 or not tensors or not all(isinstance(x, Tensor) and x.ndim > 1 and x.numel() for x in tensors):
        raise ModelError(f"{path}: contains a list, but not one of matrix pairs. It is not a LoRA.")
    matrices = [x.flatten(1) for x in tensors]
    ups, downs = matrices[::2], matrices[1::2]
    lists = list(_possible_lists(targets))
    for listed in lists:
        shapes = zip(listed.values(), ups, downs, strict=False)
        if len(listed) == len(ups) and all(fits(target.shape, up.shape, down.shape) for target, up, down in shapes):
            return [Pair(module, up, down) for module, up, down in zip(listed, ups, downs, strict=True)]
    counts = ", ".join(map(str, sorted({len(listed) for listed in lists})))
    raise ModelError(
        f"{path}: contains {len(ups)} pairs of matrices without names, which do not match this model's layers in "
        f"order (its lists have {counts} pairs). It was made for another model, for instance T2V-Turbo for "
        "VideoCrafter2. None of it was used."
    )


def _possible_lists(targets: Targets) -> Iterator[dict[str, Target]]:
    """Yield the sets of modules, in order, that a list without names may be for."""
    for listed in targets.listed.values():
        for pattern in _SUBSETS.values():
            chosen = {module: target for module, target in listed.items() if pattern.search(module)}
            if COND_PROJ in chosen:
                yield {module: target for module, target in chosen.items() if module != COND_PROJ}
            if chosen:
                yield chosen
