"""Meanings of the names in torch's pickles: a tensor's description, a dictionary, or nothing. None is imported."""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import torch

from .weight_bytes import MAX_DIMENSIONS, Layout, UnusableTensor, is_size

MAX_KEY = 500
"""Maximum length of a dictionary's key in characters: no weight has a longer name."""
MAX_TENSORS = 1 << 14
"""Maximum number of tensors in a file. A model saved with its training state has a few thousand."""
_MAX_STORAGE_KEY = 100
_DEEPEST_KEY = 3
_BEFORE_MEANING = 6
"""Number of arguments of _rebuild_tensor_v2 before `metadata`, which marks numbers as conjugated or negated."""

_TRAINER_MODULES = (
    "pytorch_lightning", "lightning", "lightning_fabric", "numpy", "_codecs", "omegaconf", "argparse", "pathlib",
    "datetime", "decimal", "uuid",
)  # fmt: skip
"""Packages whose objects training frameworks leave in checkpoints."""
_BUILTIN_DATA = (
    "bool", "bytearray", "complex", "dict", "float", "frozenset", "int", "list", "object", "range", "set", "slice",
    "str", "tuple", "xrange",
)  # fmt: skip
_PLAIN_DATA = {
    *((home, name) for home in ("builtins", "__builtin__") for name in _BUILTIN_DATA),
    *(("collections", name) for name in ("defaultdict", "Counter", "deque")),
    *((home, "_reconstructor") for home in ("copyreg", "copy_reg")),
    *(("torch", name) for name in ("device", "strided", "Tensor")),
    *(("torch.nn.parameter", name) for name in ("Parameter", "Buffer")),
    ("torch.serialization", "_get_layout"),
}
"""Names of harmless objects that are not needed here."""
_STORAGES = {
    "DoubleStorage": torch.float64, "FloatStorage": torch.float32, "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16, "LongStorage": torch.int64, "IntStorage": torch.int32,
    "ShortStorage": torch.int16, "CharStorage": torch.int8, "ByteStorage": torch.uint8, "BoolStorage": torch.bool,
    "ComplexDoubleStorage": torch.complex128, "ComplexFloatStorage": torch.complex64, "UntypedStorage": torch.uint8,
    "_UntypedStorage": torch.uint8,
}  # fmt: skip
_STORAGE_MODULES = ("torch", "torch.cuda", "torch.storage")
_TENSOR_MODULES = ("torch._utils", "torch._tensor", *_STORAGE_MODULES)


class ForeignCode(Exception):
    """The error for a pickle that names something other than tensors, plain data and what training frameworks leave."""


class StoredNumbers(NamedTuple):
    """A storage: its type, its key in the file, and how many numbers it holds."""

    dtype: torch.dtype
    key: str
    length: int


class TensorDescription(NamedTuple):
    """A tensor: its storage, its type, and its layout in the storage."""

    stored: StoredNumbers
    dtype: torch.dtype
    layout: Layout


Build = Callable[[TensorDescription], Any]


class Inert:
    """Placeholder for any object that is neither plain data nor a tensor. It has no state and does nothing."""

    __slots__ = ()


INERT = Inert()


class Function(NamedTuple):
    """A function that a pickle may call: its result is computed here from the arguments; torch's code is not run."""

    result: Callable[[tuple[Any, ...], Build], Any]


class StorageKind(NamedTuple):
    """A class of torch's storages."""

    dtype: torch.dtype


def function_named(module: str, name: str) -> Function | StorageKind | torch.dtype | Inert:
    """Return the object that a name stands for. Raises ForeignCode, UnusableTensor."""
    if function := _FUNCTIONS.get((module, name)):
        return function
    if module in _STORAGE_MODULES and name in _STORAGES:
        return StorageKind(_STORAGES[name])
    if module == "torch" and isinstance(dtype := getattr(torch, name, None), torch.dtype):
        return dtype
    if (module, name) in _PLAIN_DATA or module.partition(".")[0] in _TRAINER_MODULES:
        return INERT
    if module in _TENSOR_MODULES and (name.startswith("_rebuild_") or name.endswith("Storage")):
        raise UnusableTensor(f"{module}.{name}")
    raise ForeignCode(f"{module}.{name}")


def parse_storage(name: Any) -> StoredNumbers:
    """Return the storage that a pickle describes. Raises ValueError."""
    word, kind, key, _, count, *view = name if isinstance(name, tuple) and len(name) in (5, 6) else (None,) * 5
    if word != "storage" or not isinstance(kind, StorageKind) or any(view):
        raise ValueError("it has a kind of storage that torch does not write")
    if not isinstance(key, str) or len(key) > _MAX_STORAGE_KEY or not is_size(count):
        raise ValueError("it has a storage without a valid name and size")
    return StoredNumbers(kind.dtype, key, count)


def fill(target: dict[str, Any], pairs: Iterable[tuple[Any, Any]]) -> None:
    """Add pairs to a dictionary, and skip those whose keys cannot be names of weights. Raises ValueError."""
    for key, value in pairs:
        if isinstance(key, str) and len(key) <= MAX_KEY:
            target[key] = value
        elif isinstance(key, tuple) and _is_deep(key):
            raise ValueError("a name in it is nested too deeply")


def _is_deep(key: Any) -> bool:
    """Return whether a key is nested more deeply than any trainer's.

    Only its first items are followed: looking at all of them might never end.
    """
    for _ in range(_DEEPEST_KEY):
        if not isinstance(key, tuple) or not key:
            return False
        key = key[0]
    return isinstance(key, tuple)


def _build_dictionary(arguments: tuple[Any, ...], _: Build) -> dict[str, Any]:
    """Return an OrderedDict's content. Python 2 passes its pairs as a list. Raises ValueError."""
    found: dict[str, Any] = {}
    if arguments:
        (pairs,) = arguments
        if not isinstance(pairs, list) or not all(isinstance(pair, list | tuple) and len(pair) == 2 for pair in pairs):
            raise ValueError("it has a dictionary that is not made of pairs")
        fill(found, pairs)
        # Each list can be used only once: a pickle could name a long one again and again.
        pairs.clear()
    return found


def _build_tensor(arguments: tuple[Any, ...], build: Build) -> Any:
    """Build the tensor of a call of _rebuild_tensor(storage, offset, size, stride, ...).

    Of the arguments that later versions add, only the last matters: the numbers may be meant conjugated or negated.
    """
    stored, *layout = arguments[:4]
    if len(arguments) > _BEFORE_MEANING and isinstance(arguments[6], dict) and arguments[6]:
        raise UnusableTensor("torch._utils._rebuild_tensor_v2 with metadata")
    if not isinstance(stored, StoredNumbers):
        raise ValueError("a tensor has no storage")
    return build(TensorDescription(stored, stored.dtype, _check_layout(*layout)))


def _build_typed_tensor(arguments: tuple[Any, ...], build: Build) -> Any:
    """Build the tensor of _rebuild_tensor_v3(storage, offset, size, stride, requires_grad, hooks, dtype, ...)."""
    stored, *layout = arguments[:4]
    dtype = arguments[6]
    if not isinstance(stored, StoredNumbers) or not isinstance(dtype, torch.dtype):
        raise ValueError("a tensor has no storage")
    return build(TensorDescription(stored, dtype, _check_layout(*layout)))


def _check_layout(offset: Any, shape: Any, strides: Any) -> Layout:
    if not isinstance(shape, list | tuple) or not isinstance(strides, list | tuple):
        raise ValueError("a tensor has no shape")
    # Checked before they are copied: a pickle could name long ones again and again.
    if max(len(shape), len(strides)) > MAX_DIMENSIONS:
        raise ValueError(f"a tensor has more than {MAX_DIMENSIONS} dimensions")
    return Layout(offset, tuple(shape), tuple(strides))


def _return_first(arguments: tuple[Any, ...], _: Build) -> Any:
    """Return a parameter's tensor, or the numbers of a torch.Size."""
    return arguments[0]


def _build_subclass(arguments: tuple[Any, ...], build: Build) -> Any:
    """Build the tensor of _rebuild_from_type_v2(function, type, arguments, state), without its attributes."""
    function, _, inner, _ = arguments
    if not isinstance(function, Function) or function.result is _build_subclass or not isinstance(inner, tuple):
        raise ValueError("a tensor is of a kind that torch does not write")
    return function.result(inner, build)


_FUNCTIONS = {
    ("collections", "OrderedDict"): Function(_build_dictionary),
    ("torch._utils", "_rebuild_tensor"): Function(_build_tensor),
    ("torch._utils", "_rebuild_tensor_v2"): Function(_build_tensor),
    ("torch._utils", "_rebuild_tensor_v3"): Function(_build_typed_tensor),
    ("torch._utils", "_rebuild_parameter"): Function(_return_first),
    ("torch._utils", "_rebuild_parameter_with_state"): Function(_return_first),
    ("torch._tensor", "_rebuild_from_type_v2"): Function(_build_subclass),
    ("torch", "Size"): Function(_return_first),
}
