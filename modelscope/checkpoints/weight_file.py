"""Reads the tensors of a weight file, mapped into memory, without running any code in it."""

import struct
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..device import free_memory
from ..errors import ModelError, first_line, is_memory_error
from ..files import size_of
from .pickle_names import ForeignCode
from .safetensors_files import read_safetensors
from .torch_files import ZIP, ForeignByteOrder, PackedFile, ProgramFile, read_torch
from .weight_bytes import Piece, UnusableTensor, WeightFile
from .zips import NoDirectory, find_damaged

_LFS_POINTER = b"version https://git-lfs"
_TORCHS = (ZIP, b"\x80")
"""The first bytes of torch's files: as a zip file, and in the format before 1.6."""
_TAR, _TAR_AT = b"ustar", 257
_ARCHIVES = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"7z\xbc\xaf", b"Rar!", b"\x28\xb5\x2f\xfd")
"""The first bytes of files compressed by gzip and others."""
_MOST_SHARED, _SHARED_ANYWAY = 3, 1 << 20
"""Limits of the total size of a file's tensors, which may share numbers: this many times the file's size, plus so many
bytes."""
_DAMAGE = (
    OSError, RuntimeError, ValueError, TypeError, IndexError, KeyError, EOFError, OverflowError, MemoryError,
    struct.error,
)  # fmt: skip
"""Errors that torch and the readers raise for a damaged file."""


def read_tensors(path: Path, *, mapped: bool = True) -> dict[str, Tensor]:
    """Return all tensors in a .pth, .bin, .ckpt or .safetensors file by name.

    Args:
        path: The file.
        mapped: Whether to map the tensors, which then are not read yet; otherwise they are copied.

    Raises:
        ModelError: The file holds no weights, or is damaged. The error names the file and the remedy.
    """
    state = read_state(path, mapped=mapped)
    tensors = state.get("state_dict", state) if isinstance(state, dict) else None
    if not isinstance(tensors, dict) or not any(isinstance(value, Tensor) for value in tensors.values()):
        raise ModelError(f"{path}: contains no named weights. It is not a ModelScope text2video file.")
    named = {name: value for name, value in tensors.items() if isinstance(name, str) and isinstance(value, Tensor)}
    check_shared(path, named.values())
    return named


def check_shared(path: Path, tensors: Iterable[Tensor]) -> None:
    """Refuse tensors that share numbers so often that copies would be many times the file's size. Raises ModelError."""
    with _explain_damage(path):
        if sum(x.numel() * x.element_size() for x in tensors) > _MOST_SHARED * size_of(path) + _SHARED_ANYWAY:
            raise ValueError("its tensors repeat the same numbers too often")


def read_state(path: Path, *, mapped: bool = True) -> Any:
    """Return all that a weight file holds. Raises as `read_tensors` does.

    mapped: whether to map the numbers instead of reading them now through a descriptor, which notices if somebody
    shortens the file.
    """
    with _explain_damage(path):
        return _read(path, mapped=mapped)


def verify(path: Path) -> bool:
    """Compare a file's checksums, and return whether it has any.

    Raises:
        ModelError: A checksum does not match, or the file cannot be read.
    """
    with _explain_damage(path), _open(path, mapped=False) as file:
        if file.read(Piece(0, min(file.size, len(ZIP)))) != ZIP:
            return False
        if spoilt := find_damaged(file.descriptor):
            raise ModelError(f"{path}: {spoilt} inside it does not match its checksum. Download the file again.")
        return True


@contextmanager
def _explain_damage(path: Path) -> Iterator[None]:
    """Turn the readers' errors into a ModelError that says what is wrong with the file."""
    try:
        yield
    except ForeignCode as error:
        raise ModelError(
            f"{path}: refers to {error}, which is code that weights do not need. Nothing in it was run. "
            "Delete the file, and download it from a source that you trust."
        ) from error
    except UnusableTensor as error:
        raise ModelError(
            f"{path}: contains tensors that are not plain numbers ({error}), such as sparse or quantized ones. They "
            "cannot be used here. Download the file in another precision."
        ) from error
    except ForeignByteOrder as error:
        raise ModelError(
            f"{path}: was written on a computer with the opposite byte order. Download it from another source."
        ) from error
    except ProgramFile as error:
        raise ModelError(f"{path}: is a program or an archive, not a weight file. Nothing in it was run.") from error
    except PackedFile as error:
        raise ModelError(
            f"{path}: is compressed, but torch never compresses its files. If it is an archive, unpack it; otherwise "
            "download it again."
        ) from error
    except NoDirectory as error:
        raise ModelError(
            f"{path}: the download is not complete ({size_of(path):,} bytes so far). Download it again."
        ) from error
    except _DAMAGE as error:
        raise _describe_damage(path, error) from error


def _describe_damage(path: Path, error: Exception) -> ModelError:
    """Return the error for damage inside a file."""
    size = size_of(path)
    # A small file that needs a lot of memory claims to hold more than it does: it is damaged.
    if is_memory_error(error) and 2 * size > (free_memory(torch.device("cpu")) or 0):
        return ModelError(f"{path}: there is too little memory to read it. The file may be fine. Close other programs.")
    return ModelError(
        f"{path}: damaged or not fully downloaded ({size:,} bytes; {first_line(error)}). Download it again."
    )


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
        raise ModelError(
            f"{path}: cannot be read ({reason}). Check that it is a file, and that you have permission to read it."
        ) from error


def _refuse(path: Path, start: bytes) -> None:
    """Refuse a file that holds no weights in any format. Raises ModelError, ProgramFile or PackedFile.

    start: the file's first bytes.
    """
    if not start:
        raise ModelError(f"{path}: is empty. Download it again.")
    if start.startswith(_LFS_POINTER):
        raise ModelError(f"{path}: is a Git LFS pointer, not the weights. Download the file itself.")
    if start[:64].lstrip().startswith(b"<"):
        raise ModelError(f"{path}: is a web page, not the weights. Use the site's download button, not 'save page as'.")
    if start.startswith(_TAR, _TAR_AT):
        # torch wrote tar files before 0.1.10.
        raise ProgramFile
    if start.startswith(_ARCHIVES) and start[8:9] != b"{":
        raise PackedFile


def _is_safetensors(path: Path, start: bytes) -> bool:
    """Return whether a file is in safetensors' format, judged by its content: people rename files. Raises ModelError.

    A file in neither format counts as what its name says.
    """
    named = path.suffix.lower() == ".safetensors"
    if named and start.startswith(_TORCHS) and start[8:9] != b"{":
        raise ModelError(
            f"{path}: is in torch's format, although its name says safetensors. Rename it to {path.stem}.pth."
        )
    return named or start[8:9] == b"{"
