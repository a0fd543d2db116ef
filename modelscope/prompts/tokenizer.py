"""open_clip's tokenizer, without the rest of open_clip, whose import takes seconds (torchvision, transformers)."""

import functools
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from ..errors import ModelError

_MODULE = "open_clip.tokenizer"


@functools.cache
def load_tokenizer() -> Any:
    """Return open_clip's SimpleTokenizer. Raises ModelError if the package is missing or broken."""
    try:
        # Inside a WebUI the module is already imported.
        return (sys.modules.get(_MODULE) or _load_alone()).SimpleTokenizer()
    except (ImportError, OSError, AttributeError) as error:
        raise ModelError(
            f"The text encoder needs the package open_clip_torch, which could not be imported ({error}). "
            f'Install it with: "{sys.executable}" -m pip install open_clip_torch'
        ) from error


def _load_alone() -> ModuleType:
    """Import the tokenizer's file without its package, which it does not need."""
    package = importlib.util.find_spec("open_clip")
    if package is None or package.origin is None:
        raise ImportError("it is not installed")
    spec = importlib.util.spec_from_file_location("open_clip_tokenizer", Path(package.origin).with_name("tokenizer.py"))
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
