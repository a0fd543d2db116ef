"""Weight files as torch writes them in all its ways, and such as somebody made to hurt."""

import copy
import datetime
import io
import os
import pathlib
import pickle
import struct
import sys
import time
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save, save_file
from torch import Tensor, nn

from sd_t2v.modelscope.checkpoints.weight_bytes import Piece, WeightFile
from sd_t2v.modelscope.checkpoints.weight_file import read_state, read_tensors, verify
from sd_t2v.modelscope.errors import ModelError
from sd_t2v.tools.fuzzing.mutants import write_old_file, zip_pickle

DAMAGED = "damaged or not fully downloaded"


def refused(path: Path) -> str:
    start = time.monotonic()
    for mapped in (True, False):
        with pytest.raises(ModelError) as told:
            read_state(path, mapped=mapped)
    assert time.monotonic() - start < 5
    return str(told.value)


def written(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


BASE = torch.arange(24, dtype=torch.float32)
REAL: dict[str, Any] = {
    "plain": {"a": BASE.view(4, 6), "b": torch.tensor(3.0), "none": torch.empty(0, 5)},
    "half precisions": {"a": BASE.half(), "b": BASE.bfloat16(), "c": BASE.double()},
    "other numbers": {"a": BASE.long(), "b": BASE.int(), "c": BASE.byte(), "d": BASE > 3, "e": BASE * 1j},
    "views": {"a": BASE.view(4, 6).t(), "b": BASE[5:9], "c": BASE.view(4, 6)[:, 1:5:2], "d": BASE},
    "channels last": {"a": torch.randn(2, 3, 4, 5).contiguous(memory_format=torch.channels_last)},
    "a module": nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3)).state_dict(),
    "parameters": {"a": nn.Parameter(BASE.clone()), "b": nn.Parameter(BASE.clone(), requires_grad=False)},
    "ordered": OrderedDict(state_dict=OrderedDict(a=BASE)),
    "a list": [BASE, BASE.view(2, 12)],
    "an optimizer": {"a": BASE, "optimizer": {"state": {0: {"step": 1}}, "groups": [{"lr": 1e-4, "p": (0.9, 0.99)}]}},
}  # fmt: skip


def same(found: Any, saved: Any) -> bool:
    if isinstance(saved, Tensor):
        return bool(torch.equal(found, saved)) and found.dtype == saved.dtype and found.stride() == saved.stride()
    if isinstance(saved, dict):
        named = {key: value for key, value in saved.items() if isinstance(key, str)}
        return (
            type(found) is dict and found.keys() == named.keys() and all(same(found[key], named[key]) for key in named)
        )
    if isinstance(saved, list | tuple):
        return type(found) is type(saved) and all(same(one, other) for one, other in zip(found, saved, strict=True))
    return bool(found == saved)


@pytest.mark.parametrize("mapped", [True, False])
@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("new", [True, False])
@pytest.mark.parametrize("name", REAL)
def test_reads_what_torch_writes(name: str, new: bool, protocol: int, mapped: bool, tmp_path: Path) -> None:
    path = tmp_path / "x.pth"
    torch.save(REAL[name], path, _use_new_zipfile_serialization=new, pickle_protocol=protocol)
    assert same(read_state(path, mapped=mapped), REAL[name])


@pytest.mark.parametrize("new", [True, False])
def test_tensors_share_numbers_as_they_did(new: bool, tmp_path: Path) -> None:
    path = tmp_path / "x.pth"
    torch.save({"a": BASE, "b": BASE[3:], "c": BASE.clone()}, path, _use_new_zipfile_serialization=new)
    a, b, c = read_tensors(path).values()
    assert b.data_ptr() == a.data_ptr() + 12
    assert c.untyped_storage().data_ptr() != a.untyped_storage().data_ptr()


def test_kinds_of_numbers_that_have_no_storages_of_their_own(tmp_path: Path) -> None:
    dtypes = [getattr(torch, name) for name in ("float8_e4m3fn", "uint16") if hasattr(torch, name)]
    tensors = {str(dtype): torch.ones(3).to(dtype) for dtype in dtypes}
    torch.save(tensors, tmp_path / "x.pth")
    assert {name: x.dtype for name, x in read_tensors(tmp_path / "x.pth").items()} == {str(d): d for d in dtypes}


def test_what_people_leave_in_their_own_checkpoints(tmp_path: Path) -> None:
    """Harmless objects among the hyper-parameters, and attributes of tensors."""
    tensor = BASE.clone()
    tensor.note = "an attribute"  # type: ignore[attr-defined]
    values = [
        pathlib.PurePosixPath("/data"),
        datetime.datetime(2024, 1, 1),
        torch.int32,
        torch.bool,
        torch.device("cpu"),
        slice(3),
        range(3),
        bytearray(b"123"),
    ]
    for protocol in (2, 5):
        content = {"state_dict": {"a": tensor}, "hyper_parameters": {"values": values}}
        torch.save(content, tmp_path / "x.pth", pickle_protocol=protocol)
        assert torch.equal(read_tensors(tmp_path / "x.pth")["a"], BASE)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere names of files are text")
def test_a_file_whose_name_is_no_text(tmp_path: Path) -> None:
    path = tmp_path / "w\udce9ights.pth"
    torch.save({"a": BASE}, path.open("wb"))
    assert torch.equal(read_tensors(path)["a"], BASE)


def text(words: str) -> bytes:
    raw = words.encode()
    return b"X" + struct.pack("<I", len(raw)) + raw


STORAGE = b"(" + text("storage") + b"ctorch\nFloatStorage\n" + text("0") + text("cpu") + b"K\x10tQ"
TENSOR = b"ctorch._utils\n_rebuild_tensor_v2\n(" + STORAGE + b"K\0(K\4K\4t(K\4K\1t\x89NtR"
ENDLESS = b"K\1\x85" + b"q\1h\1h\1\x86" * 60
SOUND = b"\x80\2}(" + text("a") + TENSOR + b"%su."
HOSTILE: dict[str, tuple[bytes, str]] = {
    "a key that hashes for ever": (SOUND % (ENDLESS + b"K\1"), DAMAGED),
    "a storage's key that hashes for ever": (
        SOUND.replace(text("0"), ENDLESS) % b"", DAMAGED
    ),
    "a tensor that is changed after it was checked": (
        SOUND % (text("b") + TENSOR + b"(" + STORAGE + b"K\0(K\x80J\xc0\xc6\x2d\0t(K\0K\0ttb"),
        "changes an object after creating it",
    ),
    "a dictionary with items that is no function": (
        SOUND % (text("b") + b"ccollections\nOrderedDict\n)R}" + text("items") + b"K\3sb"),
        "changes an object after creating it",
    ),
    "code": (SOUND % (text("b") + b"cos\nsystem\n" + text("x") + b"\x85R"), "refers to os.system, which is code"),
    "code that nothing calls": (SOUND % (text("b") + b"cbuiltins\nexec\n"), "refers to builtins.exec, which is code"),
    "a name that writes lines": (
        b"\x80\2" + text("os") + text("system\n  ok   UNet\x1b[8m\u202e") + b"\x93.",
        r"refers to os.system\n  ok   UNet\x1b[8m",
    ),
    "a call of a tensor": (SOUND % (text("b") + TENSOR + b")R"), DAMAGED),
    "a storage that is not there": (SOUND.replace(text("0"), text("7")) % b"", DAMAGED),
    "a storage that is shorter": (SOUND.replace(b"K\x10tQ", b"K\x11tQ") % b"", DAMAGED),
    "negative strides": (SOUND.replace(b"(K\4K\1t\x89", b"(J\xff\xff\xff\xffK\1t\x89") % b"", DAMAGED),
    "an offset past the end": (SOUND.replace(b"K\0(K\4", b"K\1(K\4") % b"", DAMAGED),
    "a shape of too large a number": (
        SOUND.replace(b"(K\4K\4t", b"(\x8a\xff" + b"\x7f" * 255 + b"K\4t") % b"", DAMAGED
    ),
    "dimensions without end": (SOUND.replace(b"(K\4K\4t", b"(" + b"K\1" * 100 + b"t") % b"", DAMAGED),
    "very many dictionaries": (b"\x80\2" + b"}" * 1_500_000 + b".", DAMAGED),
    "no opcodes": (bytes(range(256)), DAMAGED),
    "an end in the middle": (SOUND[:60], DAMAGED),
    "nothing": (b"", DAMAGED),
}  # fmt: skip


@pytest.mark.parametrize("wrap", [zip_pickle, write_old_file])
@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_pickles_are_refused_in_one_line(name: str, wrap: Callable[[bytes], bytes], tmp_path: Path) -> None:
    program, words = HOSTILE[name]
    message = refused(written(tmp_path / "x.pth", wrap(program)))
    assert words in message
    assert "\n" not in message


@pytest.mark.parametrize("wrap", [zip_pickle, write_old_file])
def test_the_program_that_the_hostile_ones_differ_from_is_sound(wrap: Callable[[bytes], bytes], tmp_path: Path) -> None:
    assert read_tensors(written(tmp_path / "x.pth", wrap(SOUND % b"")))["a"].shape == (4, 4)


def test_many_views_of_a_few_numbers_are_no_model(tmp_path: Path) -> None:
    """Each is sound by itself, and copies of them would be any number of times the file."""
    numbers = torch.zeros(500_000)
    torch.save({str(number): numbers for number in range(3)}, tmp_path / "x.pth")
    assert len(read_tensors(tmp_path / "x.pth")) == 3
    for view in (numbers.view, lambda _: numbers):
        torch.save({str(number): view(-1) for number in range(50)}, tmp_path / "x.pth")
        with pytest.raises(ModelError, match=r"damaged .*repeat the same numbers"):
            read_tensors(tmp_path / "x.pth")


def saved(content: object) -> bytes:
    file = io.BytesIO()
    torch.save(content, file)
    return file.getvalue()


def entry(data: bytes, name: bytes) -> int:
    """Where the name's entry in the directory begins."""
    return data.rindex(name) - 46


def patched(data: bytes, place: int, piece: bytes) -> bytes:
    return data[:place] + piece + data[place + len(piece) :]


SOUND_ZIP = saved({"a": BASE, "b": BASE.clone()})
LIST, NUMBERS, MORE = b"/data.pkl", b"/data/0", b"/data/1"
ARCHIVE = len(SOUND_ZIP[46 + SOUND_ZIP.index(b"PK\1\2") : SOUND_ZIP.index(LIST, SOUND_ZIP.index(b"PK\1\2"))])


def field(name: bytes, offset: int, piece: bytes) -> bytes:
    """The sound file with another value in a directory's entry."""
    return patched(SOUND_ZIP, entry(SOUND_ZIP, name) - ARCHIVE + offset, piece)


def doubled() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("x/data.pkl", pickle.dumps({}))
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("x/data.pkl", b"")
    return file.getvalue()


# torch's has its end twice, the larger one of which counts.
OTHER_ZIP = zip_pickle(SOUND % b"")
END, OTHER_END = SOUND_ZIP.rindex(b"PK\5\6"), OTHER_ZIP.rindex(b"PK\5\6")
ZIPS: dict[str, bytes] = {
    "a member's mark": field(LIST, 0, b"PK\1\3"),
    "a size that is too large": field(LIST, 20, struct.pack("<2L", 10**8, 10**8)),
    "two sizes": field(LIST, 24, struct.pack("<L", 5)),
    "a place outside of the file": field(LIST, 42, struct.pack("<L", 10**9)),
    "a place that is no member's": field(LIST, 42, struct.pack("<L", 11)),
    "a name that is longer than the directory": field(LIST, 28, b"\xff\xff"),
    "a name that is no text": field(LIST, 46, b"\xff\xfe"),
    "members that overlap": field(NUMBERS, 20, struct.pack("<2L", 200, 200)),
    "a directory that begins elsewhere": patched(OTHER_ZIP, OTHER_END + 16, struct.pack("<L", 7)),
    "a directory of another size": patched(OTHER_ZIP, OTHER_END + 12, struct.pack("<L", 99)),
    "a directory past the end": patched(OTHER_ZIP, OTHER_END + 16, struct.pack("<L", 0xFFFFFFF0)),
    "a large directory that is not there": patched(
        SOUND_ZIP[:END] + b"PK\6\7" + struct.pack("<LQL", 0, 2**63, 1) + SOUND_ZIP[END:], 0, b"PK"
    ),
    "no list of tensors": SOUND_ZIP.replace(b"/data.pkl", b"/date.pkl"),
    "a member twice": b"",
    "half of a file with an end": SOUND_ZIP[: len(SOUND_ZIP) // 2] + SOUND_ZIP[END:],
}


@pytest.mark.parametrize("name", ZIPS)
def test_damaged_zip_files_are_one_sentence(name: str, tmp_path: Path) -> None:
    path = written(tmp_path / "x.pth", ZIPS[name] or doubled())
    message = refused(path)
    assert message.startswith(f"{path}: {DAMAGED}")
    assert message.endswith("Download it again.")
    if name != "no list of tensors":
        with pytest.raises(ModelError, match=DAMAGED):
            verify(path)


def test_encrypted_and_packed_zip_files_are_named(tmp_path: Path) -> None:
    assert "is compressed" in refused(written(tmp_path / "x.pth", field(LIST, 8, b"\1\0")))
    assert "is compressed" in refused(written(tmp_path / "x.pth", field(LIST, 10, b"\x0e\0")))
    assert "is compressed" in refused(written(tmp_path / "x.pth", b"\x1f\x8b\x08" + bytes(600)))


def test_checksums_are_compared(tmp_path: Path) -> None:
    path = written(tmp_path / "x.pth", SOUND_ZIP)
    assert verify(path)
    start = SOUND_ZIP.index(BASE.numpy().tobytes())
    written(path, patched(SOUND_ZIP, start + 9, b"\xff"))
    with pytest.raises(ModelError, match="data/0 inside it does not match its checksum"):
        verify(path)
    save_file({"a": BASE}, tmp_path / "x.safetensors")
    assert not verify(tmp_path / "x.safetensors")


def test_a_file_of_the_other_byte_order_is_named(tmp_path: Path) -> None:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive, zipfile.ZipFile(io.BytesIO(SOUND_ZIP)) as sound:
        for name in sound.namelist():
            archive.writestr(name, "big" if name.endswith("byteorder") else sound.read(name))
    assert "the opposite byte order" in refused(written(tmp_path / "x.pth", file.getvalue()))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda: torch.quantize_per_tensor(torch.ones(4), 0.1, 0, torch.qint8), "qtensor"),
        (lambda: torch.eye(3).to_sparse(), "sparse"),
        (lambda: torch.ones(2, device="meta"), "meta"),
        (lambda: torch.ones(1).expand(1000), "repeats its numbers"),
    ],
)
def test_tensors_that_are_no_plain_numbers_are_named(make: Callable[[], Tensor], name: str, tmp_path: Path) -> None:
    torch.save({"a": make()}, tmp_path / "x.pth")
    message = refused(tmp_path / "x.pth")
    assert name in message
    assert "contains tensors that are not plain numbers" in message


def test_safetensors_of_an_unknown_kind_are_named(tmp_path: Path) -> None:
    message = refused(written(tmp_path / "x.safetensors", safetensors(listed(dtype='"F4"'))))
    assert "contains tensors that are not plain numbers (F4)" in message


def safetensors(header: bytes, numbers: bytes = bytes(64), length: int | None = None) -> bytes:
    return struct.pack("<Q", len(header) if length is None else length) + header + numbers


def listed(**changes: Any) -> bytes:
    about = {"dtype": '"F32"', "shape": "[2, 2]", "data_offsets": "[0, 16]"} | changes
    return ("{" + '"a": {' + ", ".join(f'"{key}": {value}' for key, value in about.items()) + "}}").encode()


@pytest.mark.parametrize(
    "data",
    [
        safetensors(listed(), length=2**63),
        safetensors(listed(), length=9_000_000),
        safetensors(listed(), length=5),
        safetensors(listed(dtype="3")),
        safetensors(listed(shape="[2, 3]")),
        safetensors(listed(shape=f"[0, {2**62}, {2**62}]", data_offsets="[0, 0]")),
        safetensors(listed(shape="[" + "1," * 100 + "1]", data_offsets="[0, 4]")),
        safetensors(listed(shape='"22"')),
        safetensors(listed(data_offsets="[0]")),
        safetensors(listed(data_offsets="[16, 0]")),
        safetensors(listed(data_offsets="[64, 80]")),
        safetensors(listed(data_offsets="[-16, 0]")),
        safetensors(b'{"a": 3}'),
        safetensors(b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
        safetensors(listed()[:-1] + b"," + listed()[1:]),
        safetensors(listed()[:-1] + b"," + listed()[1:].replace(b'"a"', b'"b"')),
        safetensors(listed().replace(b'"a"', b'"' + b"a" * 2000 + b'"')),
        safetensors(listed(), b""),
    ],
)
def test_safetensors_that_lie_are_damaged(data: bytes, tmp_path: Path) -> None:
    assert DAMAGED in refused(written(tmp_path / "x.safetensors", data))


@pytest.mark.parametrize("mapped", [True, False])
def test_reads_what_safetensors_writes(mapped: bool, tmp_path: Path) -> None:
    tensors = {
        "a": BASE.view(2, 3, 4),
        "b": torch.tensor(2, dtype=torch.int64),
        "c": BASE.bfloat16(),
        "d": torch.ones(0, 3),
    }
    path = written(tmp_path / "x.safetensors", save(tensors, {"format": "pt"}))
    assert same(read_state(path, mapped=mapped), {name: tensors[name] for name in read_tensors(path)})
    assert read_tensors(path).keys() == tensors.keys()
    odd = save({"a": BASE})
    length = struct.unpack("<Q", odd[:8])[0]
    odd = struct.pack("<Q", length + 1) + odd[8 : 8 + length] + b" " + odd[8 + length :]
    assert torch.equal(read_tensors(written(tmp_path / "y.safetensors", odd))["a"], BASE)


def test_a_file_that_is_shortened_meanwhile_is_noticed(tmp_path: Path) -> None:
    path = written(tmp_path / "x.pth", bytes(100_000))
    with WeightFile(path, mapped=False) as file:
        os.truncate(path, 50_000)
        assert file.read(Piece(10, 20)) == bytes(20)
        for read in (lambda: file.read(Piece(60_000, 20)), lambda: file.storage(Piece(40_000, 60_000), 4)):
            with pytest.raises(EOFError):
                read()


def test_what_was_copied_stays_where_the_file_is_shortened(tmp_path: Path) -> None:
    path = tmp_path / "x.pth"
    torch.save({"a": torch.ones(1_000_000)}, path)
    state = read_state(path, mapped=False)
    os.truncate(path, 100)
    assert state["a"].sum() == 1_000_000


@pytest.mark.skipif(sys.platform == "win32", reason="has no such files")
def test_a_pipe_keeps_nobody_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x.pth")
    assert "cannot be read" in refused(tmp_path / "x.pth")


def test_a_copy_of_what_is_read_is_like_any_tensor(tmp_path: Path) -> None:
    torch.save({"a": BASE}, tmp_path / "x.pth")
    for mapped in (True, False):
        tensor = copy.deepcopy(read_state(tmp_path / "x.pth", mapped=mapped)["a"])
        assert tensor.add_(1).sum() == BASE.sum() + 24
