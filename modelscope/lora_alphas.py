"""How strong PEFT's pairs are, where a file says so beside them: newer versions of diffusers write its settings."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from safetensors import safe_open

from .errors import ModelError

Alphas = Callable[[str, int], float]
"""A module's name and rank to what its product is multiplied by."""
_KEY = "lora_adapter_metadata"


def adapter_alphas(path: Path) -> Alphas:
    """From the metadata of a .safetensors file; 1 where there are none. Raises ModelError."""
    if path.suffix.lower() != ".safetensors":
        return _alphas({})
    with safe_open(path, "pt") as file:
        text = (file.metadata() or {}).get(_KEY, "{}")
    try:
        return _alphas(json.loads(text))
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise ModelError(f"{path}: its adapter's settings cannot be read. It is damaged.") from error


def _alphas(settings: dict[str, Any]) -> Alphas:
    parts: dict[str, tuple[float, dict[str, float], bool]] = {}
    for part in {name.partition(".")[0] for name in settings.keys()}:  # noqa: SIM118 - a list has none, which is an error
        alpha, special, root = (settings.get(f"{part}.{key}") for key in ("lora_alpha", "alpha_pattern", "use_rslora"))
        named = {str(ending): float(value) for ending, value in (special or {}).items()}
        if alpha is not None:
            parts[part] = float(alpha), named, bool(root)

    def scale(module: str, rank: int) -> float:
        part = module.partition(".")[0]
        if part not in parts:
            return 1.0
        alpha, named, root = parts[part]
        alpha = next((value for ending, value in named.items() if f".{module}".endswith(f".{ending}")), alpha)
        return alpha / (rank**0.5 if root else rank)

    return scale
