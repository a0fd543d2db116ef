"""Stand-ins for missing packages that others import but benchmarks do not use."""

import importlib
import sys
from types import ModuleType
from typing import Any

Contents = dict[str, dict[str, Any]]
"""Maps full names of modules to their contents."""
OMEGACONF: Contents = {
    "omegaconf": {"MISSING": "???", "OmegaConf": object},
    "omegaconf.errors": {"OmegaConfBaseException": type("OmegaConfBaseException", (Exception,), {})},
}
"""The modules that our configuration imports to read files."""
_PRIMITIVES = "cryptography.hazmat.primitives"
CRYPTOGRAPHY: Contents = {
    "cryptography": {},
    "cryptography.hazmat": {},
    _PRIMITIVES: {},
    f"{_PRIMITIVES}.asymmetric": {},
    f"{_PRIMITIVES}.serialization": {},
    f"{_PRIMITIVES}.asymmetric.ed25519": {"Ed25519PrivateKey": object},
}
"""The modules that modelscope's hub client imports to sign in."""


def provide(contents: Contents) -> None:
    """Make a package importable. If all of these modules are installed, nothing changes."""
    try:
        for name in contents:
            importlib.import_module(name)
    except ImportError:
        for name, values in contents.items():
            sys.modules[name] = ModuleType(name)
            vars(sys.modules[name]).update(values)
