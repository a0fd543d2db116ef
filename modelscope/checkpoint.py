"""Reads tensors out of one weight file, mapped into memory and without running anything in it."""

import collections
import functools
import pickle
import re
import struct
import tarfile
import warnings
import zipfile
from importlib import import_module
from pathlib import Path
from typing import Any

import safetensors
import torch
from safetensors.torch import load_file
from torch import Tensor

from .errors import ModelError, first_line, is_memory_error
from .placement import free_memory

_LFS_POINTER = b"version https://git-lfs"
_TRAINER_MODULES = ("pytorch_lightning", "lightning", "lightning_fabric", "numpy", "_codecs", "omegaconf", "argparse")
"""Packages whose objects training frameworks leave in checkpoints; they are skipped, never imported."""

_DAMAGE = (
    OSError, RuntimeError, ValueError, TypeError, IndexError, KeyError, AttributeError, EOFError,
    AssertionError, OverflowError, MemoryError, struct.error, pickle.UnpicklingError, safetensors.SafetensorError,
)  # fmt: skip
"""What a damaged file makes pickle, zip and torch raise."""

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
"""Harmless, and of no use here: inert as well."""


class _ForeignCode(Exception):
    """A pickle names something that is neither a tensor nor a trainer's leftover."""


def read_tensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a .pth, .bin, .ckpt or .safetensors file by name, mapped and therefore not yet read.

    Raises ModelError that names the file and the remedy.
    """
    state = read_state(path)
    tensors = state.get("state_dict", state) if isinstance(state, dict) else None
    if not isinstance(tensors, dict) or not any(isinstance(value, Tensor) for value in tensors.values()):
        raise ModelError(f"{path}: holds no weights by name. It is not a ModelScope text2video file.")
    return {name: value for name, value in tensors.items() if isinstance(name, str) and isinstance(value, Tensor)}


def read_state(path: Path) -> Any:
    """What such a file holds, whatever that is. Raises as `read_tensors` does."""
    _refuse_other_content(path)
    try:
        return load_file(path) if path.suffix == ".safetensors" else _read_pickle(path)
    except _ForeignCode as error:
        raise ModelError(
            f"{path}: names {error}, code that weights have no need of. Nothing in it was run. "
            "Delete the file and download it from a source you trust."
        ) from error
    except _DAMAGE as error:
        size = path.stat().st_size
        # A small file that wants a lot claims to hold what it does not.
        if is_memory_error(error) and 2 * size > (free_memory(torch.device("cpu")) or 0):
            raise ModelError(f"{path}: too little memory to read it. It may be sound; close other programs.") from error
        raise ModelError(
            f"{path}: damaged or not fully downloaded ({size:,} bytes; {first_line(error)}). Download it again."
        ) from error


def _refuse_other_content(path: Path) -> None:
    try:
        with path.open("rb") as file:
            start = file.read(64)
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error.strerror}). Check that it is a file you may read.") from error
    if not start:
        raise ModelError(f"{path}: is empty. Download it again.")
    if start.startswith(_LFS_POINTER):
        raise ModelError(f"{path}: is a Git LFS pointer, not the weights. Download the file itself.")
    if start.lstrip().startswith(b"<"):
        raise ModelError(f"{path}: is a web page, not the weights. Use the site's download button, not 'save page as'.")
    if start.startswith(b"PK") and not zipfile.is_zipfile(path):
        size = path.stat().st_size
        raise ModelError(f"{path}: the download is not complete ({size:,} bytes so far). Download it again.")


def _refuse_programs(path: Path, *, zipped: bool) -> None:
    """TorchScript archives and old tar files: some versions of torch run or unpack them whatever they are told."""
    if zipped:
        with zipfile.ZipFile(path) as archive:
            program = any(name.endswith("/constants.pkl") for name in archive.namelist())
    else:
        program = tarfile.is_tarfile(path)
    if program:
        raise ModelError(f"{path}: is a program or an archive, not a file of weights. Nothing in it was run.")


def _read_pickle(path: Path) -> Any:
    zipped = zipfile.is_zipfile(path)
    _refuse_programs(path, zipped=zipped)
    # torch.serialization.load, because the WebUI replaces torch.load by a version that refuses files of newer torch.
    load = functools.partial(torch.serialization.load, str(path), map_location="cpu", mmap=zipped)
    with warnings.catch_warnings():
        # torch's remarks on old pickles are not for the people who downloaded them.
        warnings.simplefilter("ignore")
        try:
            return load(weights_only=True)
        except pickle.UnpicklingError as error:
            if zipped:
                return load(weights_only=False, pickle_module=_InertPickle)
            foreign = re.search(r"GLOBAL (\S+)", str(error))
            # torch's own words tell people to run the file's code.
            raise _ForeignCode(foreign[1]) if foreign else pickle.UnpicklingError("not as torch writes it") from error


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
        """Rebuild a tensor."""
        return self._function(*args)


class _InertUnpickler(pickle.Unpickler):
    """Builds tensors; anything else is inert if a trainer may have left it there, and an error if not."""

    def find_class(self, module: str, name: str) -> Any:
        """Resolve a global of the pickle without importing it."""
        if (module, name) == ("collections", "OrderedDict"):
            return collections.OrderedDict
        if module == "torch._utils" and name in ("_rebuild_tensor_v2", "_rebuild_parameter"):
            return _Rebuild(name)
        if (module, name) in _PLAIN_DATA or module.partition(".")[0] in _TRAINER_MODULES:
            return _Inert
        raise _ForeignCode(f"{module}.{name}")


class _InertPickle:
    """What torch.load wants of a pickle module, for zip files."""

    Unpickler = _InertUnpickler
