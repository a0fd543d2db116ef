"""Files that are large where a reader has to think: each is done within its time and its memory."""

import io
import json
import pickle
import struct
import zipfile
from collections.abc import Callable, Iterator

import pytest
import torch

from sd_t2v.tests.modelscope.checkpoints.test_weight_files import TENSOR, text
from sd_t2v.tools.fuzzing.mutants import write_old_file, zip_pickle
from sd_t2v.tools.fuzzing.supervisor import GOOD, Supervisor


@pytest.fixture(scope="module")
def supervisor() -> Iterator[Supervisor]:
    with Supervisor() as one:
        yield one


def names(count: int, pattern: str = "weight{}") -> list[str]:
    return [pattern.format(number) for number in range(count)]


def tensors(listed: list[str]) -> bytes:
    """A pickle of very many tensors, each of a few opcodes."""
    first = b"\x80\2}(" + text("unet.a.lora_A.weight") + TENSOR
    function, arguments = b"ctorch._utils\n_rebuild_tensor_v2\n", TENSOR.partition(b"_v2\n")[2][:-1]
    made = b"q\1".join((function, b"")) + b"0" + arguments + b"q\x020"
    return first + made + b"".join(text(name) + b"h\1h\2R" for name in listed) + b"u."


def directory(count: int) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("x/data.pkl", pickle.dumps({}))
        for number in range(count):
            archive.writestr(f"x/data/{number}", b"")
    return file.getvalue()


def header(listed: list[str], **extra: str) -> bytes:
    entries = {name: {"dtype": "F32", "shape": [0, 4], "data_offsets": [0, 0]} for name in listed}
    raw = json.dumps({"__metadata__": extra, **entries}).encode()
    return struct.pack("<Q", len(raw)) + raw


def framed(inner: bytes) -> bytes:
    """A safetensors file whose list is full of these."""
    raw = b'{"__metadata__": [' + inner + b"0]}"
    return struct.pack("<Q", len(raw)) + raw


def configuration(inner: str) -> bytes:
    return b'{"model": {"model_args": {}, "model_cfg": ' + inner.encode() + b"}}"


def same_numbers() -> bytes:
    file = io.BytesIO()
    torch.save(dict.fromkeys(names(1000, "a{}.lora_A.weight"), torch.zeros(1_000_000)), file)
    return file.getvalue()


def one_key_often(parts: int) -> bytes:
    """A dictionary whose keys are one long tuple, named again and again."""
    key = b"(" + b"N" * parts + b"tq\0" + b"0"
    return b"\x80\2" + key + b"}(" + b"h\0N" * parts + b"u."


def one_list_often(pairs: int, times: int) -> bytes:
    """Dictionaries that are all made of one long list of pairs."""
    listed = b"](" + b"".join(text(f"a{number}") + b"N\x86" for number in range(pairs)) + b"e\x85q\4"
    return b"\x80\2ccollections\nOrderedDict\nq\1" + listed + b"](" + b"h\1h\4R" * times + b"e."


def one_shape_often(sides: int, times: int) -> bytes:
    """Tensors that all have one long shape."""
    function = b"ctorch._utils\n_rebuild_tensor_v2\nq\1"
    storage = TENSOR.partition(b"_v2\n")[2].partition(b"Q")[0] + b"Q"
    arguments = storage + b"K\0](" + b"K\1" * sides + b"eq\3h\3tq\2"
    return b"\x80\2" + function + arguments + b"](" + b"h\1h\2R" * times + b"e."


END = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 9, 9, 9 << 20, 4, 0)
ZIP, OLD, SAFE, LORA = "weights, zip", "weights, before torch 1.6", "weights, safetensors", "LoRA"
LORA_NAMES = names(16_000, "unet.a{}.b.c.d.lora_A.weight")
PATTERNS = json.dumps({"unet.lora_alpha": 1, "unet.alpha_pattern": dict.fromkeys(names(50_000, "b.c{}"), 2)})
BOMBS: dict[str, tuple[str, str, Callable[[], bytes]]] = {
    "dictionaries": (ZIP, "x.pth", lambda: zip_pickle(b"\x80\2" + b"}" * 2_000_000 + b".")),
    "dictionaries that are remembered": (OLD, "x.pth", lambda: write_old_file(b"\x80\4" + b"}\x94" * 2_000_000 + b".")),
    "lists in lists": (ZIP, "x.pth", lambda: zip_pickle(b"\x80\2" + b"]" * 400_000 + b"a" * 399_999 + b".")),
    "tuples in tuples": (ZIP, "x.pth", lambda: zip_pickle(b"\x80\2)" + b"\x85" * 900_000 + b".")),
    "a long text": (ZIP, "x.pth", lambda: zip_pickle(b"\x80\2" + text("\U0001f3ac" + "a" * 60_000_000) + b".")),
    "a text too long": (OLD, "x.pth", lambda: write_old_file(b"\x80\2" + text("a" * 70_000_000) + b".")),
    "tensors": (ZIP, "x.pth", lambda: zip_pickle(tensors(names(16_000)))),
    "more tensors": (ZIP, "x.pth", lambda: zip_pickle(tensors(names(20_000)))),
    "long names": (LORA, "x.pt", lambda: zip_pickle(tensors(names(16_000, "a_lora_A." * 50 + "{}")))),
    "a LoRA of tensors": (LORA, "x.pt", lambda: zip_pickle(tensors(LORA_NAMES))),
    "a LoRA with patterns": (LORA, "x.safetensors", lambda: header(LORA_NAMES, lora_adapter_metadata=PATTERNS)),
    "a LoRA of the same numbers": (LORA, "x.pt", same_numbers),
    "one key": (ZIP, "x.pth", lambda: zip_pickle(one_key_often(300_000))),
    "one list": (ZIP, "x.pth", lambda: zip_pickle(one_list_often(50_000, 150_000))),
    "one shape": (OLD, "x.pth", lambda: write_old_file(one_shape_often(400_000, 15_000))),
    "members": (ZIP, "x.pth", lambda: directory(30_000)),
    "more members": (ZIP, "x.pth", lambda: b"PK\3\4" + bytes(9 << 20) + END),
    "a list in JSON": (SAFE, "x.safetensors", lambda: header(names(16_000))),
    "a longer list in JSON": (SAFE, "x.safetensors", lambda: header(names(40_000))),
    "short lists in JSON": (SAFE, "x.safetensors", lambda: framed(b'{"a":[]},' * 800_000)),
    "deep lists in JSON": (SAFE, "x.safetensors", lambda: framed((b"[" * 28 + b"]" * 28 + b",") * 140_000)),
    "short names in JSON": (SAFE, "x.safetensors", lambda: framed(b'{"a":0},' * 800_000)),
    "lists in JSON": ("configuration", "configuration.json", lambda: configuration("[" + "[]," * 340_000 + "[]]")),
    "pairs in JSON": ("configuration", "configuration.json", lambda: configuration("[" + "{}," * 340_000 + "{}]")),
    "an index": ("index", "i", lambda: json.dumps({"weight_map": dict.fromkeys(names(60_000), "a")}).encode()),
    "an index of files": ("index", "i", lambda: json.dumps({"weight_map": {n: n for n in names(40_000)}}).encode()),
}  # fmt: skip
PLACES = {
    "configuration": "model/configuration.json",
    "index": "diffusers/unet/diffusion_pytorch_model.safetensors.index.json",
}


@pytest.mark.parametrize("name", BOMBS)
def test_large_lists_are_read_or_refused_in_time(name: str, supervisor: Supervisor) -> None:
    reader, file, make = BOMBS[name]
    verdict = supervisor.judge(reader, PLACES.get(reader, f"files/{file}"), make())
    assert verdict.outcome in GOOD, verdict
