"""LoRA files in every known format: read, recognised, fitted to a model, worn for a run."""

import math
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..checkpoints.weight_file import check_shared, read_state
from ..errors import ModelError, shorten
from ..memory.deltas import Delta, fits, worn
from ..model import Model
from .foreign import made_for
from .pairs import SHOWN, Pair, named_pairs, tensors_in
from .targets import COND_PROJ, Homes, Part, Target

_SUBSETS: dict[str, re.Pattern[str]] = {
    "whole network": re.compile(""),
    "spatial transformers": re.compile(r"(^|\.)attentions\."),
    "temporal transformers": re.compile(r"temp_attentions\.|transformer_in\."),
    "attention": re.compile(r"\.attn\d\.|\.ff\.net\.0\.proj|self_attn\."),
}
"""What trainers choose to train, in lists without names."""
_LARGEST_READ = 1 << 30
"""Bytes. Larger files are hardly LoRAs; they are mapped to be recognised, and copied only if they are."""
_PIECE = 1 << 20
"""Numbers that are looked at at once."""


@dataclass(frozen=True)
class Lora:
    """What a file adds, by the names of the UNet's and the text encoder's weights; and T2V-Turbo's `guidance`."""

    unet: Mapping[str, Sequence[Delta]] = field(default_factory=dict)
    text: Mapping[str, Sequence[Delta]] = field(default_factory=dict)
    guidance: Sequence[Delta] = ()

    @property
    def is_turbo(self) -> bool:
        """Whether it makes the model a T2V-Turbo, with rules of its own."""
        return bool(self.guidance)

    def times(self, unet: float, text: float) -> "Lora":
        """The same at these weights; a part at 0 is left out."""
        return Lora(_times(self.unet, unet), _times(self.text, text), [d.times(unet) for d in self.guidance if unet])


def _times(deltas: Mapping[str, Sequence[Delta]], factor: float) -> dict[str, list[Delta]]:
    return {name: [delta.times(factor) for delta in added] for name, added in deltas.items()} if factor else {}


def together(loras: Sequence[Lora]) -> Lora:
    """Several as one."""
    return Lora(
        _joined([lora.unet for lora in loras]),
        _joined([lora.text for lora in loras]),
        [delta for lora in loras for delta in lora.guidance],
    )


def _joined(several: Sequence[Mapping[str, Sequence[Delta]]]) -> dict[str, list[Delta]]:
    found: dict[str, list[Delta]] = defaultdict(list)
    for deltas in several:
        for name, added in deltas.items():
            found[name] += added
    return dict(found)


@contextmanager
def wearing(model: Model, loras: Sequence[Lora]) -> Iterator[None]:
    """The model's weights come with the LoRAs in them while inside, and afterwards as they ever were."""
    if not loras:
        yield
        return
    # What stayed on the device would be merged from there, not from the file.
    model.leave()
    all_of_them = together(loras)
    with ExitStack() as stack:
        stack.enter_context(worn(model.unet, all_of_them.unet))
        stack.enter_context(worn(model.text_encoder, all_of_them.text))
        stack.callback(setattr, model.unet, "cond_proj", model.unet.cond_proj)
        model.unet.cond_proj = all_of_them.guidance
        yield


def read_lora(path: Path, model: Model) -> Lora:
    """Read a file and find the weights that it is for: all of them, or ModelError, which says what the file is."""
    mapped = _size(path) > _LARGEST_READ
    content, homes = read_state(path, mapped=mapped), Homes(model)
    if isinstance(content, list | tuple):
        check_shared(path, (x for x in content if isinstance(x, Tensor)))
        pairs = _nameless(path, list(content), homes)
    else:
        tensors = tensors_in(path, content)
        check_shared(path, tensors.values())
        pairs = named_pairs(path, tensors)
    found = {pair.module: homes.find(pair.module) for pair in pairs}
    _check_homes(path, found)
    _check_twice(path, found)
    deltas: dict[Part, dict[str, list[Delta]]] = {"unet": defaultdict(list), "text": defaultdict(list)}
    misfits = []
    for pair in pairs:
        target = found[pair.module]
        assert target
        if not fits(target.shape, pair.up.shape, pair.down.shape):
            misfits.append(_misfit(pair, target))
        # Copies: what is mapped would end the process if somebody shortened the file during the run.
        up, down = (x.clone() if mapped else x for x in (pair.up, pair.down))
        deltas[target.part][target.weight].append(Delta(up, down, pair.scale, target.third))
    if misfits:
        raise ModelError(
            f"{path}: was made for another model: {len(misfits)} of its {len(pairs)} modules do not fit this one "
            f"({shorten(misfits, SHOWN)}). Nothing of it was used."
        )
    _check_numbers(path, pairs)
    return Lora(
        {name: added for name, added in deltas["unet"].items() if name}, deltas["text"], deltas["unet"].get("", ())
    )


def _nameless(path: Path, tensors: list[Any], homes: Homes) -> list[Pair]:
    """Text-To-Video-Finetuning's and T2V-Turbo's lists: up, down, up, down, ... in the order of diffusers' modules."""
    if len(tensors) % 2 or not tensors or not all(isinstance(x, Tensor) and x.ndim > 1 and x.numel() for x in tensors):
        raise ModelError(f"{path}: holds a list, but not of pairs of matrices. It is no LoRA.")
    matrices = [x.flatten(1) for x in tensors]
    ups, downs = matrices[::2], matrices[1::2]
    lists = list(_lists(homes))
    for targets in lists:
        shapes = zip(targets.values(), ups, downs, strict=False)
        if len(targets) == len(ups) and all(fits(target.shape, up.shape, down.shape) for target, up, down in shapes):
            return [Pair(module, up, down) for module, up, down in zip(targets, ups, downs, strict=True)]
    counts = ", ".join(map(str, sorted({len(targets) for targets in lists})))
    raise ModelError(
        f"{path}: holds {len(ups)} pairs of matrices without names, which do not fit this model's layers in their "
        f"order (its lists have {counts} pairs). It was made for another model, for instance T2V-Turbo for "
        "VideoCrafter2. Nothing of it was used."
    )


def _lists(homes: Homes) -> Iterator[dict[str, Target]]:
    """What a list without names may be for."""
    for targets in homes.listed.values():
        for pattern in _SUBSETS.values():
            chosen = {module: target for module, target in targets.items() if pattern.search(module)}
            if COND_PROJ in chosen:
                yield {module: target for module, target in chosen.items() if module != COND_PROJ}
            if chosen:
                yield chosen


def _check_homes(path: Path, found: Mapping[str, Target | None]) -> None:
    homeless = [module for module, target in found.items() if target is None]
    if homeless:
        raise ModelError(
            f"{path}: {len(homeless)} of its {len(found)} modules are not in this model ({shorten(homeless, SHOWN)}). "
            "It was made for another model. Nothing of it was used."
        )


def _check_twice(path: Path, found: Mapping[str, Target | None]) -> None:
    """Whether names of different formats mean the same weight."""
    first: dict[Target | None, str] = {}
    for module, target in found.items():
        if first.setdefault(target, module) != module:
            raise ModelError(f"{path}: is for one weight twice, as {first[target]} and as {module}. It is damaged.")


def _misfit(pair: Pair, target: Target) -> str:
    origin = made_for(pair.module, pair.down.shape[1])
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
            f"{path}: holds values that are no finite numbers ({shorten(bad, SHOWN)}). Its training went wrong, or it "
            "is damaged. Nothing of it was used."
        )


def _is_finite(x: Tensor) -> bool:
    pieces = x.reshape(-1).split(_PIECE)
    return x.is_floating_point() and all(bool(torch.isfinite(piece.double().sum())) for piece in pieces)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
