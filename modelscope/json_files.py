"""JSON from strangers: bounded in size and depth, and nothing in it that JSON does not have."""

import json
import math
import re
from pathlib import Path
from typing import Any

from .files import open_file

MAX_BYTES = 8 << 20
"""The lists of names in weight files are the longest that there are; those of any model take a tenth of this."""
MAX_DEPTH = 32
MAX_DIGITS = 40
# A text without an end goes to the end: else each quotation mark in it would be tried as another beginning.
_PIECE = re.compile(rb'"(?:\\.|[^"\\])*\\?(?:"|\Z)|[\[\]{}]', re.DOTALL)


def read_json(path: Path) -> Any:
    """Return a file's content. Raises OSError, ValueError."""
    with open_file(path) as file:
        return parse_json(file.read(MAX_BYTES + 1))


def parse_json(data: bytes) -> Any:
    """Return what the bytes say. Raises ValueError, also for doubled names and for numbers that are none."""
    if len(data) > MAX_BYTES:
        raise ValueError(f"it is longer than {MAX_BYTES >> 20} MB")
    _check_depth(data)
    return json.loads(
        data.decode("utf-8-sig"),
        object_pairs_hook=_pairs,
        parse_int=_whole,
        parse_float=_number,
        parse_constant=_constant,
    )


def _check_depth(data: bytes) -> None:
    depth = 0
    for found in _PIECE.finditer(data):
        depth += {b"[": 1, b"{": 1, b"]": -1, b"}": -1}.get(found[0], 0)
        if depth > MAX_DEPTH:
            raise ValueError(f"it has lists in lists, more than {MAX_DEPTH} deep")


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("it has one name twice")
    return found


def _whole(text: str) -> int:
    if len(text) > MAX_DIGITS:
        raise ValueError("it has a number of too many digits")
    return int(text)


def _number(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError("it has a number that is too large")
    return number


def _constant(text: str) -> Any:
    raise ValueError(f"it has {text}, which is no number")
