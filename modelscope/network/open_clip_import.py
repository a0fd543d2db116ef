"""Imports open_clip where torchvision's compiled operators do not fit the installed torch.

open_clip imports torchvision for its image side, and torchvision then asks torch about operators that a mismatched
build never registered. The text tower calls none of them, so declaring their schemas is enough to get past the import.
"""

import importlib
import re
import sys
from types import ModuleType

import torch

from ..errors import ModelError

_MISSING_OPERATOR = re.compile(r"operator torchvision::(\w+) does not exist")
_SCHEMA = "{}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
_MAX_DECLARATIONS = 8
# A Library's declarations last as long as the object.
_declarations: list[torch.library.Library] = []


def open_clip_module(name: str) -> ModuleType:
    """Import `open_clip.<name>`; raise ModelError with the remedy where that is impossible."""
    for _ in range(_MAX_DECLARATIONS):
        try:
            return importlib.import_module(f"open_clip.{name}")
        except RuntimeError as error:
            missing = _MISSING_OPERATOR.search(str(error))
            if not missing:
                raise _cannot_import(error) from error
            _declare(missing[1])
        except ImportError as error:
            raise _cannot_import(error) from error
    raise ModelError("open_clip could not be imported: torchvision does not fit the installed torch. Reinstall both.")


def _declare(operator: str) -> None:
    library = torch.library.Library("torchvision", "FRAGMENT")
    library.define(_SCHEMA.format(operator))
    _declarations.append(library)
    for module in [name for name in sys.modules if name.partition(".")[0] in ("torchvision", "open_clip", "timm")]:
        del sys.modules[module]


def _cannot_import(error: Exception) -> ModelError:
    return ModelError(
        f"The text encoder needs the package open_clip_torch, which could not be imported ({error}). "
        f'Install it with: "{sys.executable}" -m pip install open_clip_torch'
    )
