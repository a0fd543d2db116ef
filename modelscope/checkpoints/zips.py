"""Reads the table of contents of zip files as torch writes them: members are not compressed and do not overlap."""

import os
import struct
import zlib
from io import BufferedReader
from itertools import pairwise
from typing import NamedTuple

from ..files import read_at

_MOST_DIRECTORY = 8 << 20
"""Maximum size of the table of contents in bytes: a hundred thousand members. A model has a few thousand."""
_END, _END_64 = struct.Struct("<4s4H2LH"), struct.Struct("<4sQ2H2L4Q")
_WHERE_END_64 = struct.Struct("<4sLQL")
_ENTRY, _HEADER = struct.Struct("<4s6H3L5H2L"), struct.Struct("<4s5H3L2H")
_LONGEST_COMMENT = 0xFFFF
_SEE_EXTRA, _EXTRA_64 = 0xFFFFFFFF, 1
_PIECE = 1 << 20


class Member(NamedTuple):
    """A file in a zip file.

    start, size: the location of its bytes in the zip file; packed: whether they are compressed or encrypted, which
    torch never does.
    """

    name: str
    start: int
    size: int
    crc: int
    packed: bool


class NoDirectory(ValueError):
    """The error for a zip file that ends before its table of contents."""


def read_members(file: BufferedReader) -> dict[str, Member]:
    """Return all members by name. Raises NoDirectory; ValueError, EOFError or struct.error for damage; OSError."""
    start, size = _find_directory(file)
    if size > _MOST_DIRECTORY:
        raise ValueError(f"its table of contents is larger than {_MOST_DIRECTORY >> 20} MB")
    data, at, found = read_at(file, start, size), 0, {}
    taken: list[tuple[int, int]] = [(start, start + size)]
    while at < size:
        member, header, at = _read_entry(file, data, at)
        if member.name in found:
            raise ValueError("it has the same member twice")
        found[member.name] = member
        taken.append((header, member.start + member.size))
    taken.sort()
    if any(end > following for (_, end), (following, _) in pairwise(taken)):
        raise ValueError("its members overlap")
    return found


def _find_directory(file: BufferedReader) -> tuple[int, int]:
    """Return the position and the size of the table of contents."""
    length = file.seek(0, os.SEEK_END)
    tail_start = max(0, length - _END.size - _LONGEST_COMMENT)
    tail = read_at(file, tail_start, length - tail_start)
    at = tail.rfind(b"PK\5\6")
    if at < 0 or len(tail) - at < _END.size:
        raise NoDirectory
    size, start = _END.unpack_from(tail, at)[5:7]
    before = at - _WHERE_END_64.size
    if before >= 0 and tail.startswith(b"PK\6\7", before):
        place = _WHERE_END_64.unpack_from(tail, before)[2]
        mark, *_, size, start = _END_64.unpack(read_at(file, _check_within(place, length), _END_64.size))
        if mark != b"PK\6\6":
            raise ValueError("its table of contents does not end where it should")
    return _check_within(start, length), _check_within(size, length)


def _check_within(number: int, length: int) -> int:
    """Return a position or size if it is within the file: larger ones may be more than seek takes. Raises EOFError."""
    if number > length:
        raise EOFError("it ends too soon")
    return number


def _read_entry(file: BufferedReader, data: bytes, at: int) -> tuple[Member, int, int]:
    """Return a member, the position of its header, and the position of the next entry."""
    mark, _, _, flags, method, _, _, crc, packed, size, *lengths, _, _, _, header = _ENTRY.unpack_from(data, at)
    name_size, extra_size, comment_size = lengths
    name_at = at + _ENTRY.size
    extra_at = name_at + name_size
    following = extra_at + extra_size + comment_size
    if mark != b"PK\1\2" or following > len(data):
        raise ValueError("its table of contents is damaged")
    sizes = _read_large_fields(data[extra_at : extra_at + extra_size], (size, packed, header))
    size, packed, header = (_check_within(number, 1 << 62) for number in sizes)
    member = Member(data[name_at:extra_at].decode(), _find_start(file, header), size, crc, bool(method or flags & 1))
    if not member.packed and size != packed:
        raise ValueError("a member has two sizes")
    return member._replace(size=packed), header, following


def _read_large_fields(extra: bytes, numbers: tuple[int, int, int]) -> list[int]:
    """Return the numbers; those too large for their fields are taken from the extra fields."""
    while len(extra) >= 4:
        kind, size = struct.unpack_from("<2H", extra)
        if kind == _EXTRA_64:
            more = iter(struct.unpack(f"<{size // 8}Q", extra[4 : 4 + size // 8 * 8]))
            return [next(more, number) if number == _SEE_EXTRA else number for number in numbers]
        extra = extra[4 + size :]
    return list(numbers)


def _find_start(file: BufferedReader, header: int) -> int:
    """Return the position at which a member's bytes begin."""
    mark, *_, name_size, extra_size = _HEADER.unpack(read_at(file, header, _HEADER.size))
    if mark != b"PK\3\4":
        raise ValueError("a member is not where the table of contents says")
    return header + _HEADER.size + int(name_size) + int(extra_size)


def find_damaged(file: BufferedReader) -> str:
    """Return the name of the first member whose bytes do not match its checksum, or an empty string.

    Raises as `read_members` does.
    """
    for member in read_members(file).values():
        crc, at, end = 0, member.start, member.start + member.size
        while at < end:
            piece = read_at(file, at, min(_PIECE, end - at))
            crc, at = zlib.crc32(piece, crc), at + len(piece)
        if crc != member.crc and not member.packed:
            return member.name
    return ""
