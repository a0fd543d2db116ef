"""Ways to damage a file: any bytes, or those that have a meaning in its format."""

import io
import json
import pickle
import struct
import zipfile
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

Mutate = Callable[[Random, bytes], bytes]
_NUMBERS = (0, 1, 2, 0x7F, 0x80, 0xFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 2**40, 2**62, 2**63, 2**64 - 1)
_ZIP_MARKS = (b"PK\3\4", b"PK\1\2", b"PK\5\6", b"PK\6\6", b"PK\6\7")
_TEXTS = (
    "",
    "x",
    "state_dict",
    "${oc.env:PATH}",
    "\n  ok   UNet\x1b[8m",
    "\u202eabc",
    "a" * 5000,
    "../x",
    "True",
    "1e999",
)


def damage(random: Random, data: bytes) -> bytes:
    """Change some bytes in random places, a few times."""
    for _ in range(random.choice((1, 1, 2, 4, 16))):
        data = random.choice(_WAYS)(random, data)
    return data


def _flip(random: Random, data: bytes) -> bytes:
    return _put(data, _place(random, data), bytes([random.randrange(256)]))


def _cut(random: Random, data: bytes) -> bytes:
    return data[: random.randrange(len(data) + 1)]


def _number(random: Random, data: bytes) -> bytes:
    size = random.choice((1, 2, 4, 8))
    number = random.choice((*_NUMBERS, len(data), random.randrange(2**32))) % 256**size
    return _put(data, _place(random, data), number.to_bytes(size, random.choice(("little", "big"))))


def _splice(random: Random, data: bytes) -> bytes:
    """Repeat a piece elsewhere, or leave one out."""
    start, goal = _place(random, data), _place(random, data)
    piece = data[start : start + random.choice((1, 8, 64, 1024))]
    return data[:goal] + piece * random.choice((0, 1, 1, 3)) + data[goal + random.choice((0, len(piece))) :]


_WAYS: Sequence[Mutate] = (_flip, _flip, _flip, _number, _number, _splice, _cut)


def _place(random: Random, data: bytes) -> int:
    """Return a random position, more often near the ends of the data, where formats have their lists."""
    near = random.choice((len(data), 64, 512))
    place = random.randrange(max(1, min(near, len(data))))
    return place if random.random() < 0.5 else max(0, len(data) - 1 - place)


def _put(data: bytes, place: int, piece: bytes) -> bytes:
    return data[:place] + piece + data[place + len(piece) :]


def damage_zip(random: Random, data: bytes) -> bytes:
    """Change fields of a zip file's headers and directory."""
    for _ in range(random.choice((1, 1, 2, 3))):
        mark = random.choice(_ZIP_MARKS)
        places = [at for at in range(len(data)) if data.startswith(mark, at)]
        if places:
            size = random.choice((2, 2, 4, 8))
            number = random.choice((*_NUMBERS, len(data))) % 256**size
            place = random.choice(places) + 4 + 2 * random.randrange(26)
            data = _put(data, place, number.to_bytes(size, "little"))
    return data


def damage_json(random: Random, data: bytes) -> bytes:
    """Change values and names in a document, or its text."""
    try:
        document = json.loads(data)
    except ValueError:
        return damage(random, data)
    for _ in range(random.choice((1, 1, 2, 5))):
        document = _with_another(random, document)
    text = json.dumps(document, ensure_ascii=random.random() < 0.5)
    if random.random() < 0.2:
        text = text.replace("$", "\\u0024")
    if random.random() < 0.2:
        text = text.replace("1", random.choice(("NaN", "Infinity", "9" * 400, "1e400", "[" * 2000, '{"a":1,"a":2}')), 1)
    return text.encode(errors="surrogatepass")


def _with_another(random: Random, value: Any) -> Any:
    """Return a copy of a value in which something has been replaced."""
    if isinstance(value, dict) and value and random.random() < 0.9:
        key = random.choice(list(value))
        changed = {**value, key: _with_another(random, value[key])}
        if random.random() < 0.2:
            changed[random.choice(_TEXTS)] = changed.pop(key)
        return changed
    if isinstance(value, list) and value and random.random() < 0.8:
        place = random.randrange(len(value))
        return [*value[:place], _with_another(random, value[place]), *value[place + 1 :]]
    return _any_value(random, value)


def _any_value(random: Random, value: Any) -> Any:
    nested: Any = value
    for _ in range(random.choice((1, 2, 40))):
        nested = [nested] if random.random() < 0.7 else {"a": nested}
    others: tuple[Any, ...] = (
        None,
        True,
        -1,
        0,
        0.5,
        3,
        10**6,
        2**63,
        2**100,
        1e300,
        "4",
        [],
        {},
        [[4]],
        [value] * 100,
        nested,
    )
    return random.choice((*others, random.choice(_TEXTS)))


def damage_safetensors(random: Random, data: bytes) -> bytes:
    """Change the JSON header, and sometimes its stated length."""
    (length,) = struct.unpack("<Q", data[:8])
    header = damage_json(random, data[8 : 8 + length])
    said = len(header) if random.random() < 0.8 else random.choice((*_NUMBERS, len(header) + 1, len(header) - 1))
    return struct.pack("<Q", said) + header + data[8 + length :]


def zip_pickle(program: bytes, storages: Sequence[bytes] = (bytes(64), bytes(64))) -> bytes:
    """Return a zip file with a pickle, as torch writes it."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("archive/data.pkl", program)
        archive.writestr("archive/byteorder", "little")
        for number, storage in enumerate(storages):
            archive.writestr(f"archive/data/{number}", storage)
    return file.getvalue()


def write_old_file(program: bytes) -> bytes:
    """Return a file in the format before torch 1.6, with a pickle that names a storage of 16 numbers."""
    headers = (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True})
    first = b"".join(pickle.dumps(header, protocol=2) for header in headers)
    return first + program + pickle.dumps(["0"], protocol=2) + struct.pack("<q", 16) + bytes(64)


def any_pickle(random: Random) -> bytes:
    """Return a random pickle program, in which most opcodes fit together."""
    count = random.choice((3, 10, 40, 300))
    return b"\x80\x02" + b"".join(random.choice(_OPCODES)(random) for _ in range(count)) + b"."


def _text(random: Random) -> bytes:
    raw = random.choice((*_TEXTS, "storage", "0", "cpu", "weight")).encode()
    return b"X" + struct.pack("<I", len(raw)) + raw


def _whole(random: Random) -> bytes:
    number = random.choice((*_NUMBERS, *range(20)))
    return b"\x8a\x09" + number.to_bytes(9, "little") if number > 255 else b"K" + bytes([number])


def _name(random: Random) -> bytes:
    return random.choice(_NAMES) + b"\n"


_NAMES = (
    b"ctorch._utils\n_rebuild_tensor_v2", b"ctorch._utils\n_rebuild_tensor_v3", b"ctorch._utils\n_rebuild_parameter",
    b"ccollections\nOrderedDict", b"ctorch\nFloatStorage", b"ctorch\nHalfStorage", b"ctorch\nSize", b"ctorch\nfloat16",
    b"ctorch._tensor\n_rebuild_from_type_v2", b"cnumpy\ndtype", b"c__builtin__\nset", b"cos\nsystem",
    b"cbuiltins\nexec", b"cbuiltins\ngetattr", b"ctorch._utils\n_rebuild_qtensor", b"ccopyreg\n_reconstructor",
    b"cfuzz_canary\nrun",
)  # fmt: skip


def _storage(random: Random) -> bytes:
    kind = random.choice((b"ctorch\nFloatStorage\n", b"ctorch\nHalfStorage\n"))
    return (
        b"(X\7\0\0\0storage"
        + kind
        + b"X\1\0\0\0"
        + random.choice((b"0", b"1", b"9"))
        + b"X\3\0\0\0cpu"
        + (random.choice((b"K\x10", b"K\4", _whole(random))) + b"tQ")
    )


def _tensor(random: Random) -> bytes:
    shape, strides = (b"(" + b"".join(_whole(random) for _ in range(random.choice((1, 2, 4)))) + b"t" for _ in range(2))
    small = (b"(K\4K\4t", b"(K\4K\1t")
    shape, strides = small if random.random() < 0.5 else (shape, strides)
    offset = random.choice((b"K\0", _whole(random)))
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + _storage(random) + offset + shape + strides + b"\x89NtR"


def _bomb(random: Random) -> bytes:
    """Return nested tuples, which may stand for a huge number of them."""
    return b"K\1\x85" + b"q\1h\1h\1\x86" * random.choice((1, 60))


def _raw(random: Random) -> bytes:
    return bytes([random.randrange(256)])


_SIMPLE = b"(}])N\x88\x89tul\x85\x86\x87seabR\x810\x94\x93\x8f\x90\x91Q2"
_OPCODES: Sequence[Callable[[Random], bytes]] = (
    *(lambda random: bytes([random.choice(_SIMPLE)]),) * 4,
    _text, _text, _whole, _name, _storage, _tensor, _tensor, _bomb, _raw,
    lambda random: b"q" + bytes([random.randrange(4)]),
    lambda random: b"h" + bytes([random.randrange(4)]),
    lambda random: b"r" + struct.pack("<I", random.choice(_NUMBERS) % 2**32),
    lambda random: b"}(" + _text(random) + _tensor(random) + b"u",
)  # fmt: skip
