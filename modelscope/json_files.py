"""Reads JSON from untrusted files: bounded in size and depth, and strictly as the standard defines it."""

import json
import math
import re
from pathlib import Path
from typing import Any

from .files import open_file

MAX_BYTES = 1 << 20
"""Maximum size of a JSON file in bytes. The longest, an index of hundreds of files, takes a fifth of this."""
MAX_DEPTH = 32
MAX_ENTRIES = 400_000
"""Maximum number of commas and brackets: each value between them takes memory, however short it is."""
MAX_DIGITS = 40
# A string that is not closed matches to the end of the data: else each quotation mark in it would be tried as a start.
_TEXT = re.compile(rb'"(?:\\.|[^"\\])*\\?(?:"|\Z)', re.DOTALL)
_NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))


def read_json(path: Path) -> Any:
    """Return a file's content.

    Raises:
        OSError: The file cannot be read.
        ValueError: The content is not JSON, or too large.
    """
    with open_file(path) as file:
        return parse_json(file.read(MAX_BYTES + 1))


def parse_json(data: bytes, longest: int = MAX_BYTES) -> Any:
    """Return the value of a JSON document. Raises ValueError, also for repeated names and for NaN and infinity.

    longest: maximum size of the document in bytes.
    """
    if len(data) > longest:
        raise ValueError(f"it is longer than {longest >> 20} MB")
    _check_depth(data)
    return json.loads(
        data.decode("utf-8-sig"),
        object_pairs_hook=_build_object,
        parse_int=_parse_whole,
        parse_float=_parse_number,
        parse_constant=_refuse_constant,
    )


def _check_depth(data: bytes) -> None:
    """Check how deeply lists and objects are nested, by repeatedly removing the innermost brackets. Raises ValueError.

    Counting millions of brackets one by one would take seconds.
    """
    bare = _TEXT.sub(b"", data)
    brackets = bare.translate(None, _NO_BRACKETS)
    if bare.count(b",") + len(brackets) > MAX_ENTRIES:
        raise ValueError(f"it has more than {MAX_ENTRIES:,} entries")
    for _ in range(MAX_DEPTH):
        brackets = brackets.replace(b"[]", b"_").replace(b"{}", b"_").replace(b"_", b"")
    if brackets:
        raise ValueError(f"its brackets are more than {MAX_DEPTH} deep, or are not closed")


def _build_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("it has the same name twice")
    return found


def _parse_whole(text: str) -> int:
    if len(text) > MAX_DIGITS:
        raise ValueError("it has a number with too many digits")
    return int(text)


def _parse_number(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError("it has a number that is too large")
    return number


def _refuse_constant(text: str) -> Any:
    raise ValueError(f"it has {text} instead of a number")
