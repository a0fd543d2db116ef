"""What people see of files that strangers made: one plain line, exit code 1, nothing that the file wrote itself."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from sd_t2v.miniature.recipe import MODEL_FOLDER
from sd_t2v.modelscope.errors import ModelError
from sd_t2v.modelscope.lora.lora_file import read_lora
from sd_t2v.t2v_helpers.commands import demo as cli
from sd_t2v.t2v_helpers.commands import models as models_cli
from sd_t2v.t2v_helpers.hosts.console import ConsoleHost
from sd_t2v.t2v_helpers.models import convert
from sd_t2v.t2v_helpers.models.convert import convert as convert_model
from sd_t2v.t2v_helpers.models.doctor import Diagnosis, Finding
from sd_t2v.t2v_helpers.models.folders import ModelFolder, list_model_names
from sd_t2v.t2v_helpers.models.misplaced import Misplaced, move
from sd_t2v.t2v_helpers.page.models_panel import _diagnosis_html
from sd_t2v.tests.helpers.support import small_model, write_model_folder
from sd_t2v.tests.modelscope.checkpoints.test_weight_files import ENDLESS, SOUND, STORAGE, TENSOR, ZIPS, text
from sd_t2v.tools.fuzzing.mutants import zip_pickle

UNET = "text2video_pytorch_model.pth"


def doctor(folder: Path, capsys: pytest.CaptureFixture[str], *options: str) -> str:
    """What the doctor prints of a model with something wrong."""
    code = models_cli.main(["doctor", str(folder), "--models-dir", str(folder.parent), *options])
    out = capsys.readouterr().out
    assert code == 1
    assert "Please report it" not in out
    return out


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_model_folder(tmp_path / "models" / "t2v")


@pytest.mark.parametrize("thorough", [True, False])
@pytest.mark.parametrize("name", ["a place outside of the file", "a name that is no text", "members that overlap"])
def test_the_doctor_says_of_a_damaged_zip_what_to_do(
    name: str, thorough: bool, folder: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    (folder / UNET).write_bytes(ZIPS[name])
    out = doctor(folder, capsys, *(["--thorough"] if thorough else []))
    assert f"WRONG UNet: {folder / UNET}: damaged or not fully downloaded (" in out
    assert not caplog.records


def test_what_is_damaged_where_only_a_thorough_look_goes(
    folder: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """A list that is sound for loading, and checksums that are not."""
    data = (folder / UNET).read_bytes()
    entry = data.rindex(b"PK\1\2")
    (folder / UNET).write_bytes(data[: entry + 16] + b"\x11\x22\x33\x44" + data[entry + 20 :])
    assert "inside it does not match its checksum" in doctor(folder, capsys, "--thorough")
    assert not caplog.records


def run(folder: Path, prompt: str, *options: str) -> int:
    size = ["--steps", "1", "--frames", "1", "--width", "32", "--height", "32"]
    return cli.main([prompt, "--model", str(folder), *size, "--output-dir", str(folder / "out"), *options])


@pytest.mark.parametrize("name", ["a place outside of the file", "a large directory that is not there"])
def test_a_run_and_a_conversion_say_the_same(name: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / UNET).write_bytes(ZIPS[name])
    words = f"Error: {folder / UNET}: damaged or not fully downloaded ("
    assert run(folder, "x") == 1
    assert words in capsys.readouterr().err
    assert models_cli.main(["convert", str(folder), "--models-dir", str(folder.parent)]) == 1
    assert words in capsys.readouterr().err


LORA = "text_encoder.text_model.encoder.layers.0.mlp.fc1.lora_"
LORAS = {
    "a tensor that is changed after it was checked": b"\x80\2}("
    + text(f"{LORA}B.weight") + TENSOR + b"(" + STORAGE + b"K\0(K\x80J\xc0\xc6\x2d\0t(K\1K\0ttb"
    + text(f"{LORA}A.weight") + TENSOR + b"(" + STORAGE + b"K\0(J\xc0\xc6\x2d\0K\x20t(K\0K\0ttbu.",
    "a dictionary with items that is no function": b"\x80\2}(" + text("state_dict") + b"ccollections\nOrderedDict\n)R("
    + text(f"{LORA}B.weight") + TENSOR + b"u}(" + text("items") + b"K\3ubu.",
    "a key that hashes for ever": SOUND % (ENDLESS + b"K\1"),
}  # fmt: skip


@pytest.mark.parametrize("name", LORAS)
def test_hostile_loras_are_damaged(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "bad.pt").write_bytes(zip_pickle(LORAS[name]))
    assert run(MODEL_FOLDER, "ball <lora:bad:1>", "--lora-dir", str(tmp_path), "--output-dir", str(tmp_path)) == 1
    assert f"Error: {tmp_path / 'bad.pt'}: damaged or not fully downloaded (" in capsys.readouterr().err


def test_a_damaged_zip_is_no_lora(tmp_path: Path) -> None:
    (tmp_path / "x.pt").write_bytes(ZIPS["a name that is no text"])
    with pytest.raises(ModelError, match="damaged or not fully downloaded"):
        read_lora(tmp_path / "x.pt", small_model())


def test_a_lora_whose_matrices_are_all_the_same_numbers_takes_no_more_memory(tmp_path: Path) -> None:
    from sd_t2v.tests.helpers.loras import layers

    one = torch.zeros(1_000_000)
    names = [name for name, _ in layers()]
    torch.save({f"unet.{name}.lora_{kind}.weight": one for name in names for kind in "AB"}, tmp_path / "x.pt")
    with pytest.raises(ModelError, match="repeat the same numbers"):
        read_lora(tmp_path / "x.pt", small_model())


def test_a_loras_alpha_may_be_any_number_and_ends_in_words(tmp_path: Path) -> None:
    pair = {f"{LORA}A.weight": torch.ones(2, 4), f"{LORA}B.weight": torch.ones(4, 2)}
    alpha = LORA.removesuffix(".lora_") + ".alpha"
    for value in (10**400, torch.tensor(1j), float("inf")):
        torch.save(pair | {alpha: value}, tmp_path / "x.pt")
        with pytest.raises(ModelError):
            read_lora(tmp_path / "x.pt", small_model())


@pytest.mark.parametrize("reference", ["${oc.env:SECRET_TOKEN}", "\\u0024{oc.env:SECRET_TOKEN}"])
def test_no_message_tells_of_the_environment(
    reference: str, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET_TOKEN", "hunter2-secret")
    path = folder / "configuration.json"
    path.write_text(path.read_text().replace(UNET, reference))
    out = doctor(folder, capsys)
    assert "it refers to something outside itself" in out
    assert "hunter2" not in out


def test_a_list_in_a_list_is_no_configuration(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = folder / "configuration.json"
    document = json.loads(path.read_text())
    document["model"]["model_cfg"]["unet_dim_mult"] = [[1, 2], [4, "%d"]]
    path.write_text(json.dumps(document))
    assert run(folder, "x") == 1
    assert "is not the model's configuration (unet_dim_mult must be a number, a text" in capsys.readouterr().err


FOREIGN = "x\n  ok    UNet: fine\x1b[8m\u202e"
ESCAPED = r"x\n  ok    UNet: fine\x1b[8m\u202e"


def names_something(path: Path) -> None:
    path.write_bytes(zip_pickle(b"\x80\2" + text("os") + text(FOREIGN) + b"\x93."))


def holds_a_tensor_called_so(path: Path) -> None:
    torch.save({FOREIGN: torch.zeros(1)}, path)


@pytest.mark.parametrize("spoil", [names_something, holds_a_tensor_called_so])
def test_no_file_writes_the_doctors_lines(
    spoil: Callable[[Path], None], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spoil(folder / UNET)
    out = doctor(folder, capsys)
    assert ESCAPED in out
    assert "\x1b" not in out
    assert sum(line.startswith("  ok    UNet") for line in out.splitlines()) == 0


@pytest.mark.skipif(os.name == "nt", reason="has no such names")
def test_no_folder_writes_lines_or_colours(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    models = tmp_path / FOREIGN
    folder = write_model_folder(models / "text2video" / FOREIGN)
    (folder / UNET).unlink()
    (folder / f"{FOREIGN}.pth").write_bytes(b"hello")
    out = doctor(folder, capsys)
    assert ESCAPED in out
    assert out.count("\n") == len([line for line in out.splitlines() if line.startswith(("  ", ESCAPED)) or not line])
    assert models_cli.main(["download", "modelscope", "--models-dir", str(models)]) == 1
    assert "\x1b" not in out + capsys.readouterr().out
    # Such a model is not offered, in no list of any page.
    host = ConsoleHost(models=models)
    assert not any(FOREIGN in name for name in list_model_names(host))
    assert all("\x1b" not in record.getMessage() for record in caplog.records)


@pytest.mark.skipif(os.name == "nt", reason="has no such names")
def test_what_is_moved_is_told_in_lines_of_ours(tmp_path: Path) -> None:
    path = tmp_path / f"{FOREIGN}.pth"
    path.write_bytes(b"x")
    (tmp_path / "taken").write_bytes(b"x")
    gone = Misplaced(tmp_path / "gone", tmp_path / "taken" / "x")
    with pytest.raises(ModelError) as told:
        move([Misplaced(path, tmp_path / "there"), gone])
    first, second = str(told.value).splitlines()
    assert ESCAPED in first
    assert "could not be moved" in second


def test_a_page_shows_names_escaped() -> None:
    found = Diagnosis(ModelFolder(FOREIGN, Path(FOREIGN)), (Finding("UNet", f"<b>{FOREIGN}"),))
    html = _diagnosis_html(found)
    assert html.isprintable()
    assert html.count(ESCAPED) == 3
    assert "<b>" not in html


def test_a_file_that_is_changed_during_a_conversion_is_told(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sizes are looked at before each tensor: what is mapped and gone would end the process."""
    loaded = convert.load_part

    def shortened(*args: object, **options: object) -> object:
        part = loaded(*args, **options)  # type: ignore[arg-type]
        with (folder / UNET).open("ab") as file:
            file.write(b"x")
        return part

    monkeypatch.setattr(convert, "load_part", shortened)
    with pytest.raises(ModelError, match="changed while it was being read"):
        convert_model(ModelFolder("m", folder), tmp_path / "new", lambda _: None)
    assert not (tmp_path / "new").exists()
