"""Reads safetensors files (a JSON header, then the numbers) as their specification says, within bounds."""

import math
import struct
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from ..json_files import parse_json
from .pickle_names import MAX_KEY, MAX_TENSORS
from .weight_bytes import MAX_DIMENSIONS, Layout, Piece, UnusableTensor, WeightFile, is_size, view_tensor

METADATA = "__metadata__"
_LENGTH = struct.Struct("<Q")
MAX_HEADER = 8 << 20
"""Maximum size of the header in bytes. A model's takes a tenth of it, as do the notes that trainers put in a LoRA."""
_TYPES = {
    "BOOL": "bool", "U8": "uint8", "I8": "int8", "U16": "uint16", "I16": "int16", "U32": "uint32", "I32": "int32",
    "U64": "uint64", "I64": "int64", "F16": "float16", "BF16": "bfloat16", "F32": "float32", "F64": "float64",
    "F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2", "C64": "complex64",
}  # fmt: skip
"""torch's names of the types; an older torch lacks some, and cannot read files that have them."""


def read_safetensors(file: WeightFile) -> dict[str, Tensor]:
    """Return all tensors by name. Raises ValueError, EOFError or struct.error for damage."""
    header, start = _read_header(file)
    listed = [(name, entry) for name, entry in header.items() if name != METADATA]
    if len(listed) > MAX_TENSORS:
        raise ValueError(f"it lists more than {MAX_TENSORS} tensors")
    if not all(_is_entry(entry) for _, entry in listed):
        raise ValueError("a tensor lacks a valid type, shape or position")
    places = sorted((entry["data_offsets"][0], entry["data_offsets"][1]) for _, entry in listed)
    if any(end > following for (_, end), (following, _) in pairwise(places)):
        raise ValueError("its tensors overlap")
    return {name: _read_tensor(file, start, name, entry) for name, entry in listed}


def read_metadata(file: WeightFile) -> dict[str, Any]:
    """Return the file's metadata. Raises as `read_safetensors` does."""
    found = _read_header(file)[0].get(METADATA, {})
    if not isinstance(found, dict):
        raise ValueError("its metadata is not a JSON object")
    return found


def _read_header(file: WeightFile) -> tuple[dict[str, Any], int]:
    """Return the header, and the position at which the numbers begin."""
    (length,) = _LENGTH.unpack(file.read(Piece(0, _LENGTH.size)))
    if length > MAX_HEADER:
        raise ValueError(f"its list of tensors is larger than {MAX_HEADER >> 20} MB")
    header = parse_json(file.read(Piece(_LENGTH.size, length)), MAX_HEADER)
    if not isinstance(header, dict):
        raise ValueError("it has no list of tensors")
    return header, _LENGTH.size + length


def _is_entry(entry: Any) -> bool:
    """Return whether an entry describes a tensor: its type, its shape, and where it begins and ends."""
    if not isinstance(entry, dict) or not isinstance(entry.get("dtype"), str):
        return False
    shape, offsets = entry.get("shape"), entry.get("data_offsets")
    if not isinstance(shape, list) or not isinstance(offsets, list):
        return False
    return len(shape) <= MAX_DIMENSIONS and len(offsets) == 2 and all(map(is_size, (*shape, *offsets)))


def _read_tensor(file: WeightFile, start: int, name: str, entry: Any) -> Tensor:
    dtype = getattr(torch, _TYPES.get(entry["dtype"], ""), None)
    if dtype is None:
        raise UnusableTensor(str(entry["dtype"])[:MAX_KEY])
    if len(name) > MAX_KEY:
        raise ValueError(f"a name in it is longer than {MAX_KEY} characters")
    shape, (begin, end) = tuple(entry["shape"]), entry["data_offsets"]
    if end < begin:
        raise ValueError("a tensor ends before it begins")
    storage = file.storage(Piece(start + begin, end - begin), dtype.itemsize)
    if storage.nbytes() != math.prod(shape) * dtype.itemsize:
        raise ValueError("the size of a tensor does not match its shape")
    return view_tensor(storage, dtype, Layout(0, shape, _strides(shape)))


def _strides(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the strides of a contiguous tensor."""
    return tuple(math.prod(shape[place + 1 :]) for place in range(len(shape)))
