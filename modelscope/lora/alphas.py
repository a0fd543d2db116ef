"""Strengths of PEFT's pairs: diffusers and PEFT write them into a LoRA's metadata or into a file next to it."""

import re
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..checkpoints.safetensors_files import MAX_HEADER, read_metadata
from ..checkpoints.weight_bytes import WeightFile
from ..errors import ModelError
from ..json_files import parse_json, read_json

Alphas = Callable[[str, int], float]
"""Maps a module's name and rank to the factor of its product."""
_KEY = "lora_adapter_metadata"
_STEM, _BESIDE = "adapter_model", "adapter_config.json"
"""PEFT's names for a LoRA's file and for the file with its settings."""


def read_alphas(path: Path) -> Alphas:
    """Read the strengths of a file's pairs.

    They are in PEFT's settings next to the file, or in a safetensors file's metadata; without either, all are 1. Raises
    ModelError if the settings are damaged.
    """
    beside = path.with_name(_BESIDE)
    try:
        if path.stem == _STEM and beside.is_file():
            return _parse_settings(read_json(beside))
        return _parse_metadata(parse_json(_read_metadata(path).encode(), MAX_HEADER))
    except (OSError, ValueError, TypeError, AttributeError, OverflowError) as error:
        raise ModelError(f"{path}: the settings of its adapter are damaged. Download it again.") from error


def _read_metadata(path: Path) -> str:
    try:
        with WeightFile(path, mapped=False) as file:
            return str(read_metadata(file).get(_KEY, "{}"))
    except (ValueError, EOFError, struct.error):
        # A file in torch's format has no metadata.
        return "{}"


def _parse_metadata(settings: dict[str, Any]) -> Alphas:
    """Parse diffusers' settings, in which the keys of each network begin with its name."""
    parts: dict[str, dict[str, Any]] = {}
    for name, value in settings.items():
        part, _, key = name.partition(".")
        parts.setdefault(part, {})[key] = value
    scales = {part: _parse_settings(named) for part, named in parts.items()}

    def scale(module: str, rank: int) -> float:
        part = module.partition(".")[0]
        return scales[part](module, rank) if part in scales else 1.0

    return scale


def _check_ending(key: str) -> str:
    """Return a key if it is the plain end of modules' names. Raises ValueError.

    PEFT accepts patterns as well, but matching one from a file could take for ever.
    """
    if not re.fullmatch(r"[\w.]+", key):
        raise ValueError(f"{key} is not a module's name")
    return key


def _parse_settings(settings: dict[str, Any]) -> Alphas:
    """Parse PEFT's settings for one network."""
    alpha, special, root = (settings.get(key) for key in ("lora_alpha", "alpha_pattern", "use_rslora"))
    named = {_check_ending(key): (place, float(value)) for place, (key, value) in enumerate((special or {}).items())}
    usual = None if alpha is None else float(alpha)

    def scale(module: str, rank: int) -> float:
        names = module.split(".")
        endings = (".".join(names[first:]) for first in range(len(names)))
        # Of all that match, the first in the file counts, as in PEFT.
        found = min((named[ending] for ending in endings if ending in named), default=(0, usual))[1]
        return 1.0 if found is None else found / (rank**0.5 if root else rank)

    return scale
