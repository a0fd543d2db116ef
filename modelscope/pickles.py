"""Pickles as torch writes them, read without running, importing or calling anything but what builds tensors."""

import collections
import pickle
from importlib import import_module
from typing import Any

_TRAINER_MODULES = ("pytorch_lightning", "lightning", "lightning_fabric", "numpy", "_codecs", "omegaconf", "argparse")
"""Packages whose objects training frameworks leave in checkpoints; they are skipped, never imported."""

_BUILTIN_DATA = (
    "bool",
    "bytearray",
    "complex",
    "dict",
    "float",
    "frozenset",
    "int",
    "list",
    "object",
    "set",
    "str",
    "tuple",
)
_PLAIN_DATA = {
    *((home, name) for home in ("builtins", "__builtin__") for name in _BUILTIN_DATA),
    *(("collections", name) for name in ("defaultdict", "Counter", "deque")),
    *(("torch", name) for name in ("Size", "device", "float16", "bfloat16", "float32", "float64", "int64")),
}
"""Harmless, and of no use here: inert as well. A bytearray may be asked to be larger than any memory."""


class ForeignCode(Exception):
    """A pickle names something that is neither a tensor nor a trainer's leftover."""


class _Inert:
    """Stands in for a trainer's object: takes whatever the pickle gives it and does nothing."""

    __slots__ = ()

    def __init__(self, *args: object, **kwargs: object) -> None:
        """Ignore everything."""

    def __setstate__(self, state: object) -> None:
        """Ignore the state."""

    def __setitem__(self, key: object, value: object) -> None:
        """Ignore the item."""

    def append(self, item: object) -> None:
        """Ignore the item."""

    add = append


class _Rebuild(_Inert):
    """Calls torch's function without handing it out: a pickle could change the attributes of what it gets."""

    __slots__ = ("_function",)

    def __init__(self, name: str) -> None:
        """Name of a function in torch._utils."""
        self._function = getattr(import_module("torch._utils"), name)

    def __call__(self, *args: Any) -> Any:
        """Rebuild a tensor, but none whose numbers stand for many: a copy of it may be larger than any memory."""
        tensor = self._function(*args)
        if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
            raise ValueError("a tensor has fewer numbers than it says")
        return tensor


class _Unpickler(pickle._Unpickler):  # type: ignore[name-defined, misc, unused-ignore] # noqa: SLF001
    """Builds tensors; anything else is inert if a trainer may have left it there, and an error if not.

    On Python's own unpickler: the one in C makes room for as many objects as a pickle claims to have.
    """

    # But for the step that makes room for as many bytes as a pickle claims.
    dispatch = {  # noqa: RUF012 - as it is there
        code: step
        for code, step in pickle._Unpickler.dispatch.items()  # type: ignore[attr-defined, unused-ignore] # noqa: SLF001
        if code != pickle.BYTEARRAY8[0]
    }

    def load(self) -> Any:
        """One object. Raises UnpicklingError, or whatever else a damaged pickle makes Python raise."""
        try:
            return super().load()
        except KeyError as error:
            raise pickle.UnpicklingError("it does not begin or go on as a pickle does") from error

    def find_class(self, module: str, name: str) -> Any:
        """Resolve a global of the pickle without importing it."""
        if (module, name) == ("collections", "OrderedDict"):
            return collections.OrderedDict
        if module == "torch._utils" and name in ("_rebuild_tensor", "_rebuild_tensor_v2", "_rebuild_parameter"):
            return _Rebuild(name)
        if (module, name) in _PLAIN_DATA or module.partition(".")[0] in _TRAINER_MODULES:
            return _Inert
        raise ForeignCode(f"{module}.{name}")


class InertPickle:
    """What torch.load wants of a pickle module."""

    Unpickler = _Unpickler

    @staticmethod
    def load(file: Any, **options: Any) -> Any:
        """One object."""
        return _Unpickler(file, **options).load()
