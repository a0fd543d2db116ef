"""Turns the bytes of a weight file into tensors: mapped, or read through a descriptor, which notices truncation."""

import math
import os
from io import BufferedReader
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..files import open_file, read_array, read_at

MAX_NUMBERS = 1 << 48
MAX_DIMENSIONS = 16


class UnusableTensor(Exception):
    """The error for a tensor that does not hold plain numbers."""


class Piece(NamedTuple):
    """Location of some bytes in a file.

    start, size: in bytes.
    """

    start: int
    size: int


class Layout(NamedTuple):
    """Layout of a tensor in its storage: what torch calls storage offset, size and stride."""

    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class WeightFile:
    """An open weight file. Use it as a context manager; mapped bytes stay mapped while any tensor uses them."""

    def __init__(self, path: Path, *, mapped: bool) -> None:
        self._file = open_file(path)
        self.size = os.fstat(self._file.fileno()).st_size
        # torch can only map a file whose name is valid text.
        self._path, self._mapped = path, mapped and is_text(str(path))
        self._whole: Any = None

    def __enter__(self) -> "WeightFile":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self._file.close()

    @property
    def descriptor(self) -> BufferedReader:
        """The open file, for reading at any position."""
        return self._file

    def read(self, piece: Piece) -> bytes:
        """Read some bytes. Raises EOFError if the file ends before them."""
        self._check(piece)
        return read_at(self._file, piece.start, piece.size)

    def storage(self, piece: Piece, alignment: int) -> torch.UntypedStorage:
        """Return some bytes as a storage. Raises EOFError if the file ends before them.

        alignment: that of the storage's numbers, in bytes; a piece that is not so aligned in the file is copied.
        """
        self._check(piece)
        if not piece.size:
            return torch.UntypedStorage(0)
        if self._mapped and piece.start % alignment == 0:
            if self._whole is None:
                self._whole = torch.UntypedStorage.from_file(str(self._path), False, self.size)
            part: torch.UntypedStorage = self._whole[piece.start : piece.start + piece.size]
            return part
        data = read_array(self._file, piece.start, piece.size)
        return torch.frombuffer(data, dtype=torch.uint8).untyped_storage()

    def _check(self, piece: Piece) -> None:
        if piece.start + piece.size > self.size:
            raise EOFError("it ends too soon")


def view_tensor(storage: torch.UntypedStorage, dtype: torch.dtype, layout: Layout) -> Tensor:
    """Return a tensor that is a view of a storage.

    Raises:
        ValueError: The tensor would reach beyond the storage.
        UnusableTensor: The tensor repeats numbers, which would let a small file fill all memory.
    """
    offset, shape, strides = layout
    numbers = (offset, *shape, *strides)
    if len(shape) != len(strides) or len(shape) > MAX_DIMENSIONS or not all(map(is_size, numbers)):
        raise ValueError("a tensor has an impossible shape")
    if math.prod(max(1, side) for side in shape) > MAX_NUMBERS:
        raise ValueError("a tensor is larger than any computer's memory")
    count, held = math.prod(shape), storage.nbytes() // dtype.itemsize
    last = offset + sum((side - 1) * stride for side, stride in zip(shape, strides, strict=True))
    if count and last >= held:
        raise ValueError("a tensor has fewer numbers than its shape requires")
    if count > held:
        raise UnusableTensor("a tensor that repeats its numbers")
    if not count:
        return torch.empty(shape, dtype=dtype)
    return torch.empty(0, dtype=dtype).set_(storage, offset, shape, strides)


def is_text(name: str) -> bool:
    """Return whether a file's name is valid text; on Linux a name may be any bytes."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def is_size(number: object) -> bool:
    """Return whether an object is an integer in the range of lengths and positions in a file."""
    return type(number) is int and 0 <= number <= MAX_NUMBERS
