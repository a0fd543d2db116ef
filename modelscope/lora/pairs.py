"""Finds the pairs of matrices in a LoRA file by the names that stable_lora, diffusers, PEFT and kohya give them."""

import math
import re
from collections import defaultdict
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..errors import ModelError, shorten
from .alphas import Alphas, read_alphas
from .foreign import recognise_foreign

SHOWN = 6
"""Number of modules that an error lists."""
_FACTOR = re.compile(
    r"(?P<module>.+?)[._]lora(?:_linear_layer)?[._](?P<kind>A|B|up|down)"
    r"(?:\.(?!weight$|bias$)(?P<adapter>\w+))?(?:\.weight)?"
)
_OLD_FACTOR = re.compile(r"(?P<module>.+)\.processor\.(?P<layer>to_[qkv]|to_out)_lora\.(?P<kind>up|down)\.weight")
_ALPHA = re.compile(r"(?P<module>.+)\.(?:network_)?alpha")
_KINDS = {"A": "down", "B": "up"}


class Pair(NamedTuple):
    """Matrices whose product scale * up @ down is added to a module's weight: up [rows, rank], down [rank, columns]."""

    module: str
    up: Tensor
    down: Tensor
    scale: float = 1.0


def find_tensors(path: Path, content: Any) -> dict[str, Tensor]:
    """Return a file's tensors by name, with plain numbers as tensors. Raises ModelError if there are none."""
    state = content.get("state_dict", content) if isinstance(content, dict) else {}
    items = state.items() if isinstance(state, dict) else ()
    # Some trainers write the alphas as plain numbers.
    numbers = {name: torch.tensor(_number(x)) for name, x in items if isinstance(x, int | float) and _is_alpha(name)}
    tensors = {str(name): x for name, x in {**dict(items), **numbers}.items() if isinstance(x, Tensor)}
    if not tensors:
        raise ModelError(f"{path}: contains no LoRA. None of it was used.")
    return tensors


def _number(x: float) -> float:
    """Return a number as a float; an integer that is too large becomes infinity."""
    try:
        return float(x)
    except OverflowError:
        return math.inf


def _is_alpha(name: Any) -> bool:
    return isinstance(name, str) and _ALPHA.fullmatch(name) is not None


def read_pairs(path: Path, tensors: dict[str, Tensor]) -> list[Pair]:
    """Combine tensors into pairs.

    Args:
        path: The file, for errors and for the settings next to it.
        tensors: The file's tensors by name.

    Raises:
        ModelError: Some tensors do not belong to a pair.
    """
    if what := recognise_foreign(tensors):
        raise ModelError(f"{path}: {what}, not for ModelScope's text2video. None of it was used.")
    modules: dict[str, dict[str, Tensor]] = defaultdict(dict)
    adapters, unknown = set(), []
    for name, tensor in tensors.items():
        if named := _parse_name(name):
            adapters.add(named.adapter)
            modules[named.module][named.kind] = tensor
        else:
            unknown.append(name)
    if unknown:
        whole = "It is not a LoRA." if len(unknown) == len(tensors) else "None of it was used."
        raise ModelError(
            f"{path}: contains tensors that belong to no known LoRA format ({shorten(unknown, SHOWN)}). {whole}"
        )
    if len(several := sorted(filter(None, adapters))) > 1:
        raise ModelError(f"{path}: holds several LoRAs ({shorten(several, SHOWN)}). Save each in its own file.")
    if halves := [module for module, factors in modules.items() if not {"up", "down"} <= factors.keys()]:
        raise ModelError(
            f"{path}: {len(halves)} of its {len(modules)} modules lack one of their two matrices "
            f"({shorten(halves, SHOWN)}). It is incomplete or damaged. None of it was used."
        )
    alphas = read_alphas(path)
    return [_make_pair(path, module, alphas, **factors) for module, factors in modules.items()]


class _Name(NamedTuple):
    """A tensor's name, parsed. kind: up, down or alpha; adapter: PEFT's name for one of several LoRAs in a file."""

    module: str
    kind: str
    adapter: str = ""


def _parse_name(name: str) -> _Name | None:
    """Parse a tensor's name. Return None if no format has such a name."""
    if match := _OLD_FACTOR.fullmatch(name):
        layer = "to_out.0" if match["layer"] == "to_out" else match["layer"]
        return _Name(f"{match['module']}.{layer}", match["kind"])
    if match := _FACTOR.fullmatch(name):
        return _Name(match["module"], _KINDS.get(match["kind"], match["kind"]), match["adapter"] or "")
    if match := _ALPHA.fullmatch(name):
        return _Name(match["module"], "alpha")
    return None


def _make_pair(
    path: Path, module: str, alphas: Alphas, *, up: Tensor, down: Tensor, alpha: Tensor | None = None
) -> Pair:
    if up.ndim < 2 or down.ndim < 2 or not down.shape[0]:
        raise ModelError(
            f"{path}: the matrices of {module} have invalid shapes ({list(up.shape)}, {list(down.shape)}). It is "
            "damaged."
        )
    up, down = up.flatten(1), down.flatten(1)
    if alpha is not None and (alpha.numel() != 1 or alpha.is_complex()):
        raise ModelError(f"{path}: the alpha of {module} is not a single number. It is damaged.")
    return Pair(module, up, down, alphas(module, len(down)) if alpha is None else float(alpha) / len(down))
