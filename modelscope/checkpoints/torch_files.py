"""Reads torch's two formats of weight files without torch's own readers: zip files, and the one used before 1.6."""

import struct
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from .pickle_names import StoredNumbers, TensorDescription
from .unpickle import Unpickled, unpickle
from .weight_bytes import Piece, WeightFile, view_tensor
from .zips import Member, read_members

_MOST_PICKLE = 64 << 20
"""Maximum size in bytes of the pickle that lists the tensors."""
_LIST, _BYTEORDER, _NUMBERS = "/data.pkl", "/byteorder", "/data/"
_PROGRAM = "/constants.pkl"
_MAGIC, _VERSION = 0x1950A86A20F9469CFC6C, 1001
_SIZE = struct.Struct("<q")
ZIP = b"PK"


class ProgramFile(Exception):
    """The error for a file that is a program, or an archive of other files."""


class PackedFile(Exception):
    """The error for a compressed file."""


class ForeignByteOrder(Exception):
    """The error for a file from a machine with the other byte order."""


class _Storages:
    """The storages of a file. Each is created once, so that tensors share storages as they did when they were saved."""

    def __init__(self, file: WeightFile, pieces: Mapping[str, Piece]) -> None:
        self._file, self._pieces = file, pieces
        self._made: dict[str, torch.UntypedStorage] = {}

    def build(self, tensor: TensorDescription) -> Tensor:
        stored = tensor.stored
        if stored.key not in self._made:
            self._made[stored.key] = self._make(stored)
        return view_tensor(self._made[stored.key], tensor.dtype, tensor.layout)

    def _make(self, stored: StoredNumbers) -> torch.UntypedStorage:
        piece, size = self._pieces.get(stored.key), stored.length * stored.dtype.itemsize
        if piece is None or piece.size < size:
            raise ValueError("the numbers of a tensor are missing or incomplete")
        return self._file.storage(piece._replace(size=size), stored.dtype.itemsize)


def read_torch(file: WeightFile) -> Any:
    """Return the saved object.

    Raises:
        ValueError, EOFError, struct.error: The file is damaged.
        ProgramFile, PackedFile, ForeignByteOrder, ForeignCode, UnusableTensor: The file is not a usable weight file.
    """
    return _read_zip(file) if file.read(Piece(0, min(2, file.size))) == ZIP else _read_old(file)


def _read_zip(file: WeightFile) -> Any:
    members = read_members(file.descriptor)
    if any(name.endswith(_PROGRAM) for name in members):
        raise ProgramFile
    if any(member.packed for member in members.values()):
        raise PackedFile
    lists = [name for name in members if name.endswith(_LIST) and name.count("/") == 1]
    if len(lists) != 1:
        raise ValueError("it has no list of tensors")
    folder = lists[0].removesuffix(_LIST)
    order = members.get(folder + _BYTEORDER)
    if order and order.size < 10 and file.read(_piece(order)) == b"big":
        raise ForeignByteOrder
    start = folder + _NUMBERS
    pieces = {name.removeprefix(start): _piece(one) for name, one in members.items() if name.startswith(start)}
    data = file.read(_check_length(_piece(members[lists[0]])))
    return unpickle(data, 0, _Storages(file, pieces).build).value


def _piece(member: Member) -> Piece:
    return Piece(member.start, member.size)


def _check_length(piece: Piece) -> Piece:
    if piece.size > _MOST_PICKLE:
        raise ValueError(f"its list of tensors is larger than {_MOST_PICKLE >> 20} MB")
    return piece


def _read_old(file: WeightFile) -> Any:
    """Read five pickles: the fourth holds the tensors, the fifth the order of the storages that follow it."""
    data = file.read(Piece(0, min(file.size, _MOST_PICKLE)))
    magic = _skim(data, 0)
    version = _skim(data, magic.end)
    if magic.value != _MAGIC or version.value != _VERSION:
        raise ValueError("it is a pickle, but not one of torch's")
    system = _skim(data, version.end)
    if isinstance(system.value, dict) and system.value.get("little_endian") is False:
        raise ForeignByteOrder
    # The list of storages says where the numbers are, and comes after the tensors.
    listed = _skim(data, system.end)
    keys = _skim(data, listed.end)
    pieces = _find_old_pieces(file, keys.end, keys.value, listed.storages)
    return unpickle(data, system.end, _Storages(file, pieces).build).value


def _skim(data: bytes, start: int) -> Unpickled:
    """Read a pickle without building its tensors."""
    return unpickle(data, start, lambda _: None)


def _find_old_pieces(
    file: WeightFile, start: int, keys: Any, storages: Mapping[str, StoredNumbers]
) -> dict[str, Piece]:
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys) or len(set(keys)) != len(keys):
        raise ValueError("it has no valid list of its storages")
    pieces = {}
    for key in keys:
        (count,) = _SIZE.unpack(file.read(Piece(start, _SIZE.size)))
        stored = storages.get(key)
        if stored is None or stored.length != count:
            raise ValueError("its list of storages does not match its tensors")
        pieces[key] = Piece(start + _SIZE.size, count * stored.dtype.itemsize)
        start += _SIZE.size + pieces[key].size
    return pieces
