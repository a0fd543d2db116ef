"""Stand-ins for packages that others import and benchmarks do not use, where they are missing."""

import importlib
import sys
from types import ModuleType
from typing import Any

Contents = dict[str, dict[str, Any]]
"""Modules by their full names, and what each has."""
OMEGACONF: Contents = {
    "omegaconf": {"MISSING": "???", "OmegaConf": object},
    "omegaconf.errors": {"OmegaConfBaseException": type("OmegaConfBaseException", (Exception,), {})},
}
"""What our configuration imports to read files."""
_PRIMITIVES = "cryptography.hazmat.primitives"
CRYPTOGRAPHY: Contents = {
    "cryptography": {},
    "cryptography.hazmat": {},
    _PRIMITIVES: {},
    f"{_PRIMITIVES}.asymmetric": {},
    f"{_PRIMITIVES}.serialization": {},
    f"{_PRIMITIVES}.asymmetric.ed25519": {"Ed25519PrivateKey": object},
}
"""What the client of modelscope's hub imports to sign in."""


def provide(contents: Contents) -> None:
    """Make a package importable. Nothing changes where all of these modules are installed."""
    try:
        for name in contents:
            importlib.import_module(name)
    except ImportError:
        for name, values in contents.items():
            sys.modules[name] = ModuleType(name)
            vars(sys.modules[name]).update(values)
