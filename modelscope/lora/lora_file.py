"""Reads LoRA files of every known format and matches them to a model, or says what they are instead."""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..checkpoints.weight_file import check_shared, read_state
from ..errors import ModelError, shorten
from ..files import size_of
from ..memory.lora_deltas import Delta, LoraDeltas, fits
from ..model import Model
from .foreign import find_origin
from .pairs import SHOWN, Pair, find_tensors, read_pairs
from .targets import Network, Target, Targets
from .unnamed_pairs import name_pairs

_LARGEST_READ = 1 << 30
"""Size in bytes above which a file is mapped, and copied only if it turns out to be a LoRA: few LoRAs are so large."""
_PIECE = 1 << 20
"""Number of values that are checked at once."""


def read_lora(path: Path, model: Model) -> LoraDeltas:
    """Read a LoRA file and find the weights to which it adds something.

    Args:
        path: A file in any format, which is recognised by its content.
        model: The model; only the shapes of its networks are used.

    Raises:
        ModelError: Some of the file does not fit the model; the text says what the file is.
    """
    mapped = size_of(path) > _LARGEST_READ
    targets = Targets(model)
    pairs = _pairs_in(path, read_state(path, mapped=mapped), targets)
    found = _find_targets(path, pairs, targets)
    _check_fit(path, pairs, found)
    deltas: dict[Network, dict[str, list[Delta]]] = {"unet": defaultdict(list), "text": defaultdict(list)}
    for pair in pairs:
        target = found[pair.module]
        # Mapped tensors are copied: they would end the process if somebody shortened the file during the run.
        up, down = (x.clone() if mapped else x for x in (pair.up, pair.down))
        deltas[target.network][target.weight].append(Delta(up, down, pair.scale, target.third))
    _check_numbers(path, pairs)
    guidance = deltas["unet"].pop("", ())
    return LoraDeltas(dict(deltas["unet"]), deltas["text"], guidance)


def _pairs_in(path: Path, content: Any, targets: Targets) -> list[Pair]:
    if isinstance(content, list | tuple):
        check_shared(path, (x for x in content if isinstance(x, Tensor)))
        return name_pairs(path, list(content), targets)
    tensors = find_tensors(path, content)
    check_shared(path, tensors.values())
    return read_pairs(path, tensors)


def _find_targets(path: Path, pairs: Sequence[Pair], targets: Targets) -> dict[str, Target]:
    """Return targets by the modules' names in the file.

    Raises:
        ModelError: A module has no target, or two modules have the same one.
    """
    found = {pair.module: targets.find(pair.module) for pair in pairs}
    unknown = [module for module, target in found.items() if target is None]
    if unknown:
        raise ModelError(
            f"{path}: {len(unknown)} of its {len(found)} modules are not in this model ({shorten(unknown, SHOWN)}). It "
            "was made for another model. None of it was used."
        )
    known = {module: target for module, target in found.items() if target}
    first: dict[Target, str] = {}
    for module, target in known.items():
        if first.setdefault(target, module) != module:
            raise ModelError(
                f"{path}: changes the same weight twice, as {first[target]} and as {module}. It is damaged."
            )
    return known


def _check_fit(path: Path, pairs: Sequence[Pair], found: Mapping[str, Target]) -> None:
    misfits = [
        _describe_misfit(pair, found[pair.module])
        for pair in pairs
        if not fits(found[pair.module].shape, pair.up.shape, pair.down.shape)
    ]
    if misfits:
        raise ModelError(
            f"{path}: was made for another model: {len(misfits)} of its {len(pairs)} modules do not fit this one "
            f"({shorten(misfits, SHOWN)}). None of it was used."
        )


def _describe_misfit(pair: Pair, target: Target) -> str:
    origin = find_origin(pair.module, pair.down.shape[1])
    shapes = f"{list(pair.up.shape)} times {list(pair.down.shape)} for {list(target.shape)}"
    return f"{pair.module} {shapes}{f', as in {origin}' if origin else ''}"


def _check_numbers(path: Path, pairs: Sequence[Pair]) -> None:
    bad = [
        pair.module
        for pair in pairs
        if not math.isfinite(pair.scale) or not all(_is_finite(factor) for factor in (pair.up, pair.down))
    ]
    if bad:
        raise ModelError(
            f"{path}: contains values that are not finite numbers ({shorten(bad, SHOWN)}). Its training went wrong, or "
            "it is damaged. None of it was used."
        )


def _is_finite(x: Tensor) -> bool:
    pieces = x.reshape(-1).split(_PIECE)
    return x.is_floating_point() and all(bool(torch.isfinite(piece.double().sum())) for piece in pieces)
