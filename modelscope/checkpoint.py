"""Reads tensors out of one weight file, mapped into memory and without running anything in it."""

import pickle
import warnings
import zipfile
from pathlib import Path
from typing import Any

import safetensors
import torch
from safetensors.torch import load_file
from torch import Tensor

from .errors import ModelError

_LFS_POINTER = b"version https://git-lfs"
_TRAINER_MODULES = ("pytorch_lightning", "lightning", "lightning_fabric", "numpy", "_codecs", "omegaconf", "argparse")
"""Packages whose objects training frameworks leave in checkpoints; they are skipped, never imported."""

_DAMAGE = (
    OSError, RuntimeError, ValueError, TypeError, IndexError, KeyError, AttributeError, EOFError,
    pickle.UnpicklingError, safetensors.SafetensorError,
)  # fmt: skip
"""What a damaged file makes pickle, zip and torch raise."""

_TENSOR_PARTS = {
    ("collections", "OrderedDict"),
    ("torch._utils", "_rebuild_tensor_v2"),
    ("torch._utils", "_rebuild_parameter"),
    ("torch", "Size"),
}
"""What pickles of tensors are built from, beside storages, which torch resolves itself."""


class _ForeignCode(Exception):
    """A pickle names something that is neither a tensor nor a trainer's leftover."""


def read_tensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a .pth, .bin, .ckpt or .safetensors file by name, mapped and therefore not yet read.

    Raises ModelError that names the file and the remedy.
    """
    _refuse_other_content(path)
    try:
        state = load_file(path) if path.suffix == ".safetensors" else _read_pickle(path)
    except _ForeignCode as error:
        raise ModelError(
            f"{path}: names {error}, code that weights have no need of. Nothing in it was run. "
            "Delete the file and download it from a source you trust."
        ) from error
    except MemoryError as error:
        raise ModelError(
            f"{path}: not enough memory to read this file. It may be sound; close other programs."
        ) from error
    except _DAMAGE as error:
        size = path.stat().st_size
        raise ModelError(
            f"{path}: damaged or not fully downloaded ({size:,} bytes; {_first_line(error)}). Download it again."
        ) from error
    tensors = state.get("state_dict", state) if isinstance(state, dict) else None
    if not isinstance(tensors, dict) or not any(isinstance(value, Tensor) for value in tensors.values()):
        raise ModelError(f"{path}: holds no weights by name. It is not a ModelScope text2video file.")
    return {str(name): value for name, value in tensors.items() if isinstance(value, Tensor)}


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


def _read_pickle(path: Path) -> Any:
    # torch.serialization.load, because the WebUI replaces torch.load by a version that refuses files of newer torch.
    options: dict[str, Any] = {"map_location": "cpu", "mmap": zipfile.is_zipfile(path)}
    with warnings.catch_warnings():
        # torch's remarks on old pickles are not for the people who downloaded them.
        warnings.simplefilter("ignore")
        try:
            return torch.serialization.load(path, weights_only=True, **options)
        except pickle.UnpicklingError:
            return torch.serialization.load(path, weights_only=False, pickle_module=_InertPickle, **options)


class _Inert:
    """Stands in for a trainer's object: takes whatever the pickle gives it and does nothing."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        """Ignore everything."""

    def __setstate__(self, state: object) -> None:
        """Ignore the state."""

    def __setitem__(self, key: object, value: object) -> None:
        """Ignore the item."""

    def append(self, item: object) -> None:
        """Ignore the item."""


class _InertUnpickler(pickle.Unpickler):
    """Builds tensors; anything else is inert if a trainer may have left it there, and an error if not."""

    def find_class(self, module: str, name: str) -> Any:
        """Resolve a global of the pickle without importing it."""
        if (module, name) in _TENSOR_PARTS:
            return super().find_class(module, name)
        if module.partition(".")[0] in _TRAINER_MODULES:
            return _Inert
        raise _ForeignCode(f"{module}.{name}")


class _InertPickle:
    """What torch.load wants of a pickle module."""

    __name__ = "inert_pickle"
    Unpickler = _InertUnpickler

    @staticmethod
    def load(file: Any, **options: Any) -> Any:
        """pickle.load for the headers of files from before torch 1.6."""
        return _InertUnpickler(file, **options).load()


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)[:160]
