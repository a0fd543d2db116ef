"""Model folders as people have them: whole, in other formats, and broken."""

import argparse
import pickle
import shutil
import struct
import sys
import tarfile
import types
import warnings
import zipfile
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.serialization import MAGIC_NUMBER, PROTOCOL_VERSION

from sd_t2v.modelscope.checkpoints.load import load_model
from sd_t2v.modelscope.checkpoints.weight_file import read_tensors
from sd_t2v.modelscope.config import ModelConfig, read_config
from sd_t2v.modelscope.errors import ModelError
from sd_t2v.modelscope.memory.residency import Residency
from sd_t2v.modelscope.model import Model
from sd_t2v.modelscope.pipeline import generate
from sd_t2v.modelscope.request import VideoRequest
from sd_t2v.tests.helpers.support import CPU, small_config, small_model, write_model_folder

UNET, VAE, CLIP = "text2video_pytorch_model.pth", "VQGAN_autoencoder.pth", "open_clip_pytorch_model.bin"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_model_folder(tmp_path / "t2v")


def load(folder: Path) -> Model:
    return load_model(folder, CPU)


def state(model: Model) -> dict[str, Tensor]:
    parts = (model.text_encoder, model.unet, model.autoencoder)
    return {f"{i}.{key}": value for i, part in enumerate(parts) for key, value in part.state_dict().items()}


def assert_golden_weights(model: Model) -> None:
    expected = state(small_model())
    assert state(model).keys() == expected.keys()
    assert all(torch.equal(value, expected[key]) for key, value in state(model).items())


def test_loads_the_original_layout(folder: Path) -> None:
    model = load(folder)
    assert model.config == small_config()
    assert not any(module.training for module in (model.text_encoder, model.unet, model.autoencoder))
    assert_golden_weights(model)
    request = VideoRequest(prompt="a red ball", steps=2, frames=2, width=32, height=32, seed=1)
    assert torch.equal(generate(Residency(model), request), generate(Residency(small_model()), request))


def test_loads_safetensors_twins(tmp_path: Path) -> None:
    assert_golden_weights(load(write_model_folder(tmp_path, ".safetensors")))


def test_loads_files_in_single_precision_and_names_from_the_configuration(folder: Path) -> None:
    tensors = torch.load(folder / UNET, weights_only=True)
    (folder / UNET).unlink()
    torch.save({key: value.float() for key, value in tensors.items()}, folder / "other name.pth")
    text = (folder / "configuration.json").read_text(encoding="utf-8")
    (folder / "configuration.json").write_text(text.replace(UNET, "other name.pth"), encoding="utf-8")
    assert_golden_weights(load(folder))


def test_loads_files_from_before_torch_1_6(folder: Path) -> None:
    tensors = torch.load(folder / UNET, weights_only=True)
    torch.save(tensors, folder / UNET, _use_new_zipfile_serialization=False)
    assert_golden_weights(load(folder))


def test_weights_are_mapped_not_copied(folder: Path) -> None:
    mapped = load_model(folder, CPU)
    resident = Path("/proc/self/smaps")
    if not resident.exists():
        pytest.skip("shows mappings on Linux only")
    assert str(folder / UNET) in resident.read_text(encoding="utf-8")
    assert mapped.unet.out[2].weight.dtype == torch.float16


def test_a_missing_configuration_means_the_1_7b(tmp_path: Path) -> None:
    config = read_config(tmp_path)
    assert config == ModelConfig()
    assert (config.unet.dim, config.unet.dim_mult, config.text.width) == (320, [1, 2, 4, 4], 1024)


ORIGINAL = """{"framework":"pytorch","task":"text-to-video-synthesis","model":{"type":"latent-text-to-video-synthesis",
"model_args":{"ckpt_clip":"open_clip_pytorch_model.bin","ckpt_unet":"text2video_pytorch_model.pth",
"ckpt_autoencoder":"VQGAN_autoencoder.pth","max_frames":16,"tiny_gpu":1},"model_cfg":{"unet_in_dim":4,"unet_dim":320,
"unet_y_dim":768,"unet_context_dim":1024,"unet_out_dim":4,"unet_dim_mult":[1,2,4,4],"unet_num_heads":8,"unet_head_dim":64,
"unet_res_blocks":2,"unet_attn_scales":[1,0.5,0.25],"unet_dropout":0.1,"temporal_attention":"True","num_timesteps":1000,
"mean_type":"eps","var_type":"fixed_small","loss_type":"mse"}},"pipeline":{"type":"latent-text-to-video-synthesis"}}"""


def test_the_originals_configuration_equals_the_built_in_one(tmp_path: Path) -> None:
    (tmp_path / "configuration.json").write_text(ORIGINAL, encoding="utf-8")
    assert read_config(tmp_path) == ModelConfig()


@pytest.mark.parametrize(
    "text", ["", "<!DOCTYPE html>", "{}", "[]", "null", '{"model": {"model_args": 3}}', "\x00\x01"]
)
def test_a_configuration_that_is_none_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "configuration.json").write_text(text, encoding="utf-8")
    with pytest.raises(ModelError, match=r"configuration\.json: is not the model's configuration"):
        read_config(tmp_path)


def fails(folder: Path) -> str:
    with pytest.raises(ModelError) as caught:
        load(folder)
    return str(caught.value)


def test_a_folder_that_is_missing_empty_or_a_file(tmp_path: Path) -> None:
    assert "no such folder" in fails(tmp_path / "nothing")
    assert "is missing (the folder holds nothing)" in fails(tmp_path)
    (tmp_path / "file").touch()
    assert "is a file, but not a weight file" in fails(tmp_path / "file")
    (tmp_path / "file.pth").touch()
    assert "file.pth: is empty" in fails(tmp_path / "file.pth")


def break_truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def break_inside(path: Path) -> None:
    data = bytearray(path.read_bytes())
    start = data.index(b"data.pkl") + 80
    data[start : start + 40] = b"\x80" * 40
    path.write_bytes(data)


BROKEN: dict[str, tuple[Any, str]] = {
    "html": (lambda path: path.write_text("\n <!doctype html><title>Not found", encoding="utf-8"), "is a web page"),
    "lfs": (
        lambda path: path.write_text("version https://git-lfs.github.com/spec/v1\noid", encoding="utf-8"),
        "Git LFS",
    ),
    "empty": (lambda path: path.write_bytes(b""), "is empty"),
    "gone": (lambda path: path.unlink(), "is missing"),
    "folder": (lambda path: (path.unlink(), path.mkdir()), "is missing"),
    "truncated": (break_truncated, "not complete"),
    "damaged": (break_inside, "damaged"),
    "noise": (lambda path: path.write_bytes(bytes(range(256)) * 9), "damaged"),
    "list": (lambda path: torch.save([torch.zeros(2)], path), "contains no named weights"),
    "text": (lambda path: torch.save({"a": "b"}, path), "contains no named weights"),
    "other": (lambda path: torch.save({"conv.weight": torch.zeros(2)}, path), "does not fit"),
}


@pytest.mark.parametrize("part", [UNET, VAE, CLIP])
@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_file_is_named_with_what_is_wrong(folder: Path, part: str, kind: str) -> None:
    breaker, expected = BROKEN[kind]
    breaker(folder / part)
    message = fails(folder)
    assert str(folder / part) in message
    assert expected in message


def test_truncated_and_foreign_safetensors(tmp_path: Path) -> None:
    folder = write_model_folder(tmp_path / "a", ".safetensors")
    path = (folder / UNET).with_suffix(".safetensors")
    break_truncated(path)
    assert "damaged or not fully downloaded" in fails(folder)
    path.write_text("<html>", encoding="utf-8")
    assert "is a web page" in fails(folder)


def test_a_mismatch_lists_the_first_keys_of_each_kind(folder: Path) -> None:
    tensors = torch.load(folder / UNET, weights_only=True)
    tensors["out.2.weight"] = torch.zeros(5, 32, 3, 3)
    tensors["stranger"] = tensors.pop("out.2.bias")
    for key in ("input_blocks.0.0.weight", *(f"input_blocks.{index}.op.weight" for index in (3, 6, 9))):
        del tensors[key]
    torch.save(tensors, folder / UNET)
    message = fails(folder)
    assert "5 missing (input_blocks.0.0.weight, input_blocks.3.op.weight, " in message
    assert ", …)" in message
    assert "1 unexpected (stranger)" in message
    assert "1 with another shape (out.2.weight [5, 32, 3, 3] instead of [4, 32, 3, 3])" in message


def test_a_file_of_another_model_is_named(folder: Path) -> None:
    shutil.copy(folder / CLIP, folder / UNET)
    assert "holds the text encoder, not the UNet" in fails(folder)


class Payload:
    def __reduce__(self) -> tuple[Any, ...]:
        return (exec, ("raise SystemError('the payload ran')",))


def pickled_text(text: str) -> bytes:
    data = text.encode()
    return b"X" + struct.pack("<I", len(data)) + data


def test_a_pickle_cannot_change_torchs_own_functions(tmp_path: Path) -> None:
    """BUILD on a function sets its attributes; torch's reader of old files then writes a file of that name."""
    target = tmp_path / "owned"
    headers = (MAGIC_NUMBER, PROTOCOL_VERSION, {})
    program = b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\nq\x01}" + pickled_text("dump_patches") + b"\x88s}"
    program += pickled_text("__name__") + pickled_text(str(target)) + b"s\x86b0("
    program += pickled_text("module") + b"h\x01" + pickled_text("a.py") + pickled_text("text") + b"tQ."
    path = tmp_path / "x.pth"
    path.write_bytes(b"".join(pickle.dumps(header, protocol=2) for header in headers) + program)
    with pytest.raises(ModelError):
        read_tensors(path)
    with zipfile.ZipFile(tmp_path / "y.pth", "w") as archive:
        archive.writestr("y/data.pkl", program)
        archive.writestr("y/version", "3")
    with pytest.raises(ModelError):
        read_tensors(tmp_path / "y.pth")
    assert [file.name for file in tmp_path.iterdir() if file.suffix != ".pth"] == []
    assert torch._utils._rebuild_tensor_v2.__name__ == "_rebuild_tensor_v2"


class Greedy:
    """A thousand gigabytes of zeros, in a few bytes."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (bytearray, (10**12,))


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_gets_no_memory_for_what_it_claims(tmp_path: Path, zipped: bool) -> None:
    path = tmp_path / "x.pth"
    torch.save({"a": torch.ones(2), "b": Greedy()}, path, _use_new_zipfile_serialization=zipped)
    assert list(read_tensors(path)) == ["a"]
    torch.save({"a": torch.ones(2), "b": bytearray(9)}, path, pickle_protocol=5)
    assert list(read_tensors(path)) == ["a"]
    claim, lie = (b"\x96" + size.to_bytes(8, "little") for size in (9, 10**12))
    path.write_bytes(path.read_bytes().replace(claim, lie))
    with pytest.raises(ModelError, match="it ends too soon"):
        read_tensors(path)


def test_programs_and_old_tar_files_are_refused(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.script(torch.nn.Linear(2, 2)).save(str(tmp_path / "x.pth"))
    with tarfile.open(tmp_path / "y.pth", "w") as archive:
        archive.add(__file__, "storages")
    for name in ("x.pth", "y.pth"):
        with pytest.raises(ModelError, match="is a program or an archive"):
            read_tensors(tmp_path / name)


def test_every_truncation_of_an_old_file_is_an_error_in_words(tmp_path: Path) -> None:
    whole, path = tmp_path / "whole.pth", tmp_path / "cut.pth"
    torch.save({"a": torch.ones(3)}, whole, _use_new_zipfile_serialization=False)
    data = whole.read_bytes()
    for end in range(1, len(data) - 1, 3):
        path.write_bytes(data[:end])
        with pytest.raises(ModelError):
            read_tensors(path)


@pytest.mark.parametrize(
    ("tensor", "words"),
    [
        (torch.zeros(4, dtype=torch.int8), "1 without floating-point numbers (out.2.bias)"),
        (torch.zeros(4, device="meta"), "meta_tensor"),
        (torch.zeros(1).expand(4), "repeats its numbers"),
        (torch.zeros(4).to_sparse(), "sparse"),
    ],
)
def test_tensors_without_numbers_are_named(folder: Path, tensor: Tensor, words: str) -> None:
    tensors = torch.load(folder / UNET, weights_only=True)
    tensors["out.2.bias"] = tensor
    torch.save(tensors, folder / UNET)
    assert words in fails(folder)


def test_plain_data_beside_weights_and_a_trainers_object_does_no_harm(folder: Path) -> None:
    checkpoint = torch.load(folder / VAE, weights_only=True)
    extras = {"args": argparse.Namespace(lr=1), "seen": {1, 2}, "dtype": torch.float16, "log": defaultdict(list)}
    torch.save(checkpoint | extras, folder / VAE)
    assert_golden_weights(load(folder))


def test_reads_files_where_the_webui_has_replaced_torch_load(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "load", lambda *args, **kwargs: None)
    assert_golden_weights(load(folder))


def test_loads_while_the_webui_has_replaced_load_state_dict(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small_model()
    monkeypatch.setattr(torch.nn.Module, "load_state_dict", lambda self, state_dict, strict=True: None)
    assert_golden_weights(load(folder))


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_with_code_is_refused_and_never_run(folder: Path, zipped: bool) -> None:
    torch.save({"weight": torch.zeros(2), "bad": Payload()}, folder / UNET, _use_new_zipfile_serialization=zipped)
    message = fails(folder)
    assert "exec" in message
    assert "Nothing in it was run" in message


def test_a_plain_pickle_with_code_is_refused_and_never_run(folder: Path) -> None:
    (folder / UNET).write_bytes(pickle.dumps({"weight": Payload()}))
    assert str(folder / UNET) in fails(folder)


def test_a_lightning_checkpoint_is_read_without_its_classes(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The fp32 VQGAN file names classes that nobody has installed and numpy scalars; none may be imported or called."""
    lightning = types.ModuleType("pytorch_lightning.callbacks.model_checkpoint")

    class ModelCheckpoint:
        def __reduce__(self) -> tuple[Any, ...]:
            return (ModelCheckpoint, ("monitor",), {"best": 1.0})

    ModelCheckpoint.__module__, ModelCheckpoint.__qualname__ = lightning.__name__, "ModelCheckpoint"
    lightning.ModelCheckpoint = ModelCheckpoint  # type: ignore[attr-defined]
    checkpoint = torch.load(folder / VAE, weights_only=True)
    numpy = pytest.importorskip("numpy")
    with monkeypatch.context() as patch:
        for name in ("pytorch_lightning", "pytorch_lightning.callbacks", lightning.__name__):
            patch.setitem(sys.modules, name, lightning)
        extras = {"callbacks": {ModelCheckpoint: {"score": numpy.float64(0.5), "at": ModelCheckpoint()}}, "epoch": 3}
        torch.save(checkpoint | extras, folder / VAE)
    with zipfile.ZipFile(folder / VAE) as archive:
        assert any(
            b"pytorch_lightning" in archive.read(name) for name in archive.namelist() if name.endswith("data.pkl")
        )
    assert "pytorch_lightning" not in sys.modules
    assert_golden_weights(load(folder))
    assert "pytorch_lightning" not in sys.modules


def test_safetensors_and_pickles_give_the_same_tensors(tmp_path: Path) -> None:
    tensors = {"a": torch.arange(6.0).view(2, 3), "b": torch.ones(1)}
    save_file(tensors, tmp_path / "x.safetensors")
    torch.save(tensors, tmp_path / "x.pth")
    assert load_file(tmp_path / "x.safetensors").keys() == read_tensors(tmp_path / "x.pth").keys()
    for name in ("x.safetensors", "x.pth"):
        assert all(torch.equal(value, tensors[key]) for key, value in read_tensors(tmp_path / name).items())
