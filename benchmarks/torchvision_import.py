"""Imports torchvision even if its compiled operators do not fit the installed torch, for instance a CPU build.

diffusers, transformers and modelscope import it, and it asks torch about operators that a mismatched build has not
registered. None of the rivals' networks calls them, so it is enough for the import to declare their schemas.
"""

import importlib
import re
import sys

import torch

_MISSING_OPERATOR = re.compile(r"operator torchvision::(\w+) does not exist")
_SCHEMA = "{}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
_MAX_DECLARATIONS = 8
# A Library's declarations last as long as the object.
_declarations: list[torch.library.Library] = []


def import_torchvision() -> None:
    """Import torchvision, and declare its missing operators. Raises RuntimeError if that does not suffice."""
    for _ in range(_MAX_DECLARATIONS):
        try:
            importlib.import_module("torchvision")
        except RuntimeError as error:
            missing = _MISSING_OPERATOR.search(str(error))
            if not missing:
                raise
            _declare(missing[1])
        else:
            return
    raise RuntimeError("torchvision does not fit the installed torch. Reinstall both.")


def _declare(operator: str) -> None:
    library = torch.library.Library("torchvision", "FRAGMENT")
    library.define(_SCHEMA.format(operator))
    _declarations.append(library)
    for module in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
        del sys.modules[module]
