"""Reads tensors out of one weight file, mapped into memory and without running anything in it."""

import struct
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..device import free_memory
from ..errors import ModelError, first_line, is_memory_error
from .pickle_names import ForeignCode
from .safetensors_files import read_safetensors
from .torch_files import ZIP, ForeignByteOrder, PackedFile, ProgramFile, read_torch
from .weight_bytes import Piece, UnusableTensor, WeightFile
from .zips import NoDirectory, find_damaged

_LFS_POINTER = b"version https://git-lfs"
_TORCHS = (ZIP, b"\x80")
"""How torch's files begin, zipped and not."""
_TAR, _TAR_AT = b"ustar", 257
_ARCHIVES = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"7z\xbc\xaf", b"Rar!", b"\x28\xb5\x2f\xfd")
"""How packed files begin, by gzip and others."""
_MOST_SHARED, _SHARED_ANYWAY = 3, 1 << 20
"""How many times the file tensors with names of their own may be that share numbers, and how many bytes more."""
_DAMAGE = (
    OSError, RuntimeError, ValueError, TypeError, IndexError, KeyError, EOFError, OverflowError, MemoryError,
    struct.error,
)  # fmt: skip
"""What a damaged file makes its readers and torch raise."""


def read_tensors(path: Path, *, mapped: bool = True) -> dict[str, Tensor]:
    """All tensors of a .pth, .bin, .ckpt or .safetensors file by name, mapped and therefore not yet read, or copied.

    Raises ModelError that names the file and the remedy.
    """
    state = read_state(path, mapped=mapped)
    tensors = state.get("state_dict", state) if isinstance(state, dict) else None
    if not isinstance(tensors, dict) or not any(isinstance(value, Tensor) for value in tensors.values()):
        raise ModelError(f"{path}: holds no weights by name. It is not a ModelScope text2video file.")
    named = {name: value for name, value in tensors.items() if isinstance(name, str) and isinstance(value, Tensor)}
    check_shared(path, named.values())
    return named


def check_shared(path: Path, tensors: Iterable[Tensor]) -> None:
    """Refuse tensors that share their numbers so often that copies would be many times the file. Raises ModelError."""
    with _explain_damage(path):
        if sum(x.numel() * x.element_size() for x in tensors) > _MOST_SHARED * _size(path) + _SHARED_ANYWAY:
            raise ValueError("its tensors are the same numbers again and again")


def read_state(path: Path, *, mapped: bool = True) -> Any:
    """What such a file holds, whatever that is. Raises as `read_tensors` does.

    mapped: not read yet. Else read through a descriptor, which notices where somebody shortens the file.
    """
    with _explain_damage(path):
        return _read(path, mapped=mapped)


def verify(path: Path) -> bool:
    """Read a whole file and return whether it has checksums of its own; all of them fit. Raises ModelError if not."""
    with _explain_damage(path), _open(path, mapped=False) as file:
        if file.read(Piece(0, min(file.size, len(ZIP)))) != ZIP:
            return False
        if spoilt := find_damaged(file.descriptor):
            raise ModelError(f"{path}: {spoilt} in it does not match its checksum. Download the file again.")
        return True


@contextmanager
def _explain_damage(path: Path) -> Iterator[None]:
    """Say what is wrong with a file as ModelError."""
    try:
        yield
    except ForeignCode as error:
        raise ModelError(
            f"{path}: names {error}, code that weights have no need of. Nothing in it was run. "
            "Delete the file and download it from a source you trust."
        ) from error
    except UnusableTensor as error:
        raise ModelError(
            f"{path}: holds tensors that are no plain numbers ({error}), such as sparse or quantized ones. They cannot "
            "be used here; download the file in another precision."
        ) from error
    except ForeignByteOrder as error:
        raise ModelError(
            f"{path}: was written by a computer that orders bytes the other way round. Download it from elsewhere."
        ) from error
    except ProgramFile as error:
        raise ModelError(
            f"{path}: is a program or an archive, not a file of weights. Nothing in it was run."
        ) from error
    except PackedFile as error:
        raise ModelError(
            f"{path}: is packed, which torch never does. Unpack it if it is an archive of files; else download it "
            "again."
        ) from error
    except NoDirectory as error:
        raise ModelError(
            f"{path}: the download is not complete ({_size(path):,} bytes so far). Download it again."
        ) from error
    except _DAMAGE as error:
        raise _describe_damage(path, error) from error


def _describe_damage(path: Path, error: Exception) -> ModelError:
    """The one sentence for everything that is wrong inside of a file."""
    size = _size(path)
    # A small file that wants a lot claims to hold what it does not.
    if is_memory_error(error) and 2 * size > (free_memory(torch.device("cpu")) or 0):
        return ModelError(f"{path}: too little memory to read it. It may be sound; close other programs.")
    return ModelError(
        f"{path}: damaged or not fully downloaded ({size:,} bytes; {first_line(error)}). Download it again."
    )


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _read(path: Path, *, mapped: bool) -> Any:
    with _open(path, mapped=mapped) as file:
        start = file.read(Piece(0, min(file.size, 512)))
        _refuse(path, start)
        if _is_safetensors(path, start):
            return read_safetensors(file)
        return read_torch(file)


def _open(path: Path, *, mapped: bool) -> WeightFile:
    try:
        return WeightFile(path, mapped=mapped)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or first_line(error)
        raise ModelError(f"{path}: cannot be read ({reason}). Check that it is a file you may read.") from error


def _refuse(path: Path, start: bytes) -> None:
    """Raises ModelError for what holds no weights in any format. start: how the file begins."""
    if not start:
        raise ModelError(f"{path}: is empty. Download it again.")
    if start.startswith(_LFS_POINTER):
        raise ModelError(f"{path}: is a Git LFS pointer, not the weights. Download the file itself.")
    if start[:64].lstrip().startswith(b"<"):
        raise ModelError(f"{path}: is a web page, not the weights. Use the site's download button, not 'save page as'.")
    if start.startswith(_TAR, _TAR_AT):
        # Before torch 0.1.10 it wrote those.
        raise ProgramFile
    if start.startswith(_ARCHIVES) and start[8:9] != b"{":
        raise PackedFile


def _is_safetensors(path: Path, start: bytes) -> bool:
    """By what is in it: people rename files. What is in neither format is read as its name says."""
    named = path.suffix.lower() == ".safetensors"
    if named and start.startswith(_TORCHS) and start[8:9] != b"{":
        raise ModelError(f"{path}: is in torch's format, not in that of its name. Rename it to {path.stem}.pth.")
    return named or start[8:9] == b"{"
