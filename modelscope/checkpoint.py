"""Reads tensors out of one weight file, mapped into memory and without running anything in it."""

import pickle
import struct
import tarfile
import warnings
import zipfile
from pathlib import Path
from typing import Any

import safetensors
import torch
from safetensors.torch import load_file
from torch import Tensor

from .errors import ModelError, first_line, is_memory_error
from .pickles import ForeignCode, InertPickle
from .placement import free_memory

_LFS_POINTER = b"version https://git-lfs"
_TORCHS = (b"PK", b"\x80")
"""How torch's files begin, zipped and not."""
_DAMAGE = (
    OSError, RuntimeError, ValueError, TypeError, IndexError, KeyError, AttributeError, EOFError,
    AssertionError, OverflowError, MemoryError, struct.error, pickle.UnpicklingError, safetensors.SafetensorError,
)  # fmt: skip
"""What a damaged file makes pickle, zip and torch raise."""


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
    start = _start(path)
    try:
        return load_file(path) if _is_safetensors(path, start) else _read_pickle(path)
    except ForeignCode as error:
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


def _start(path: Path) -> bytes:
    """How the file begins. Raises ModelError for what holds no weights in any format."""
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
    return start


def _is_safetensors(path: Path, start: bytes) -> bool:
    """By what is in it: people rename files. What is in neither format is read as its name says."""
    named = path.suffix.lower() == ".safetensors"
    if named and start.startswith(_TORCHS) and start[8:9] != b"{":
        raise ModelError(f"{path}: is in torch's format, not in that of its name. Rename it to {path.stem}.pth.")
    return named or start[8:9] == b"{"


def _refuse_archives(path: Path, *, zipped: bool) -> None:
    """TorchScript archives and old tar files: some versions of torch run or unpack them whatever they are told.

    Also those that are packed, which torch never does: they may unpack to more than any memory.
    """
    program, packed = not zipped and tarfile.is_tarfile(path), False
    if zipped:
        with zipfile.ZipFile(path) as archive:
            program = any(name.endswith("/constants.pkl") for name in archive.namelist())
            packed = any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist())
    if program:
        raise ModelError(f"{path}: is a program or an archive, not a file of weights. Nothing in it was run.")
    if packed:
        raise ModelError(
            f"{path}: is packed, which torch never does. Unpack it if it is an archive of files; else download it "
            "again."
        )


def _read_pickle(path: Path) -> Any:
    zipped = zipfile.is_zipfile(path)
    _refuse_archives(path, zipped=zipped)
    with warnings.catch_warnings():
        # torch's remarks on old pickles are not for the people who downloaded them.
        warnings.simplefilter("ignore")
        # The WebUI replaces torch.load by a version that refuses files of newer torch.
        return torch.serialization.load(
            str(path), map_location="cpu", mmap=zipped, weights_only=False, pickle_module=InertPickle
        )
