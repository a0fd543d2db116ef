"""Conversion: any layout in, one set of half-precision safetensors out, and nothing half done."""

import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from sd_t2v.benchmarks.layouts import as_bin, write_diffusers
from sd_t2v.modelscope.checkpoints.load import load_model
from sd_t2v.modelscope.errors import ModelError
from sd_t2v.t2v_helpers.commands.models import main
from sd_t2v.t2v_helpers.models.convert import convert, default_goal
from sd_t2v.t2v_helpers.models.folders import ModelFolder
from sd_t2v.t2v_helpers.models.known import advice_for, good_values
from sd_t2v.tests.helpers.layouts import assert_golden_weights
from sd_t2v.tests.helpers.support import CPU, golden, small_config, small_model, write_model_folder

UNET = "text2video_pytorch_model"
LIMIT = 300_000
"""Bytes that a file may have: less than the UNet."""


def test_any_layout_becomes_one_set(tmp_path: Path) -> None:
    for number, folder in enumerate(
        [write_diffusers(tmp_path / "a", as_bin, small_model()), write_model_folder(tmp_path / "b")]
    ):
        goal, said = tmp_path / f"out{number}", []
        convert(ModelFolder("model", folder), goal, said.append)
        assert sorted(path.name for path in goal.iterdir()) == [
            "VQGAN_autoencoder.safetensors",
            "configuration.json",
            "open_clip_pytorch_model.safetensors",
            f"{UNET}.safetensors",
        ]
        with safe_open(goal / f"{UNET}.safetensors", "pt") as file:
            assert set(file.keys()) == golden("unet_small_A.weights").keys()
            assert file.get_tensor("out.2.weight").dtype == torch.float16
        with safe_open(goal / "VQGAN_autoencoder.safetensors", "pt") as file:
            assert all(name.startswith("first_stage_model.") for name in file.keys())  # noqa: SIM118 - no mapping
        assert_golden_weights(goal)
        assert "read back" in said[-1]


def test_single_precision_becomes_half(tmp_path: Path) -> None:
    folder = write_model_folder(tmp_path / "model")
    tensors = {name: x.float() + 1e-5 for name, x in golden("unet_small_A.weights").items()}
    torch.save(tensors, folder / f"{UNET}.pth")
    convert(ModelFolder("model", folder), tmp_path / "out", lambda _: None)
    unet = load_model(tmp_path / "out", CPU).unet.state_dict()
    assert all(torch.equal(unet[name], x.half()) for name, x in tensors.items())


def test_what_is_too_large_for_half_precision_is_refused(tmp_path: Path) -> None:
    folder = write_model_folder(tmp_path / "model")
    tensors = {name: x.float() for name, x in golden("unet_small_A.weights").items()}
    tensors["out.2.bias"] = torch.tensor([1.0, 2.0, 70_000.0, 1.0])
    torch.save(tensors, folder / f"{UNET}.pth")
    with pytest.raises(ModelError, match=r"out\.2\.bias has numbers too large"):
        convert(ModelFolder("model", folder), tmp_path / "out", lambda _: None)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_nothing_is_overwritten_and_nothing_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_model_folder(tmp_path / "model")
    with pytest.raises(ModelError, match="already exists"):
        convert(ModelFolder("model", folder), folder, lambda _: None)
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 1000, "total": 1000}))
    with pytest.raises(ModelError, match=r"the disk has only 0\.0 MB free"):
        convert(ModelFolder("model", folder), tmp_path / "out", lambda _: None)
    monkeypatch.undo()
    (tmp_path / "file").touch()
    with pytest.raises(ModelError, match="could not be written"):
        convert(ModelFolder("model", folder), tmp_path / "file" / "out", lambda _: None)
    (folder / f"{UNET}.pth").write_text("<html>", encoding="utf-8")
    with pytest.raises(ModelError, match="is a web page"):
        convert(ModelFolder("model", folder), tmp_path / "out", lambda _: None)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "model"]


@pytest.mark.skipif(sys.platform == "win32", reason="limits files as Unix does")
def test_a_disk_that_ends_on_the_way_leaves_nothing(tmp_path: Path) -> None:
    folder = write_model_folder(tmp_path / "text2video" / "mine")
    limited = f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({LIMIT}, {LIMIT}))"
    script = f"{limited}\nfrom sd_t2v.t2v_helpers.commands.models import main\nimport sys; sys.exit(main())"
    command = [sys.executable, "-c", script, "convert", "mine", "--models-dir", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1
    assert "could not be written" in done.stderr and "Traceback" not in done.stderr
    assert list((tmp_path / "text2video").iterdir()) == [folder]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no modes")
def test_whoever_may_read_other_files_may_read_these(tmp_path: Path) -> None:
    convert(ModelFolder("model", write_model_folder(tmp_path / "model")), tmp_path / "out", lambda _: None)
    (tmp_path / "other").touch()
    assert {path.stat().st_mode for path in (tmp_path / "out").iterdir()} == {(tmp_path / "other").stat().st_mode}


def test_several_at_once_and_a_folder_of_that_name_do_no_harm(tmp_path: Path) -> None:
    folder = write_model_folder(tmp_path / "model")
    (tmp_path / "out.part").mkdir()
    (tmp_path / "out.part" / "precious").touch()
    failures: list[ModelError] = []

    def one() -> None:
        try:
            convert(ModelFolder("model", folder), tmp_path / "out", lambda _: None)
        except ModelError as error:
            failures.append(error)

    threads = [threading.Thread(target=one) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(failures) <= 1
    assert_golden_weights(tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "out", "out.part"]
    assert (tmp_path / "out.part" / "precious").exists()


def test_values_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    folder = write_model_folder(tmp_path / "model")
    tensors = golden("unet_small_A.weights") | {"out.2.bias": torch.full((4,), torch.nan).half()}
    torch.save(tensors, folder / f"{UNET}.pth")
    with pytest.raises(ModelError, match=r"out\.2\.bias has values that are not numbers"):
        convert(ModelFolder("model", folder), tmp_path / "out", lambda _: None)


def test_good_settings_come_along(tmp_path: Path) -> None:
    folder = write_model_folder(tmp_path / "text2video" / "zeroscope" / "zs2_XL")
    model = ModelFolder("zeroscope/zs2_XL", folder)
    goal = default_goal(model, tmp_path)
    convert(model, goal, lambda _: None)
    assert good_values(goal)["width"] == 1024
    assert advice_for(goal) == advice_for(folder) is not None


def test_an_unknown_name_comes_with_the_known_ones(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["convert", "mien", "--models-dir", str(tmp_path)]) == 1
    assert "Choose one of these: miniature" in capsys.readouterr().err
    assert main(["convert", "x" * 5000, "--models-dir", str(tmp_path)]) == 1


def test_names_become_names_of_folders(tmp_path: Path) -> None:
    for name, folder in (("<modelscope>", "modelscope-fp16"), ("zeroscope/zs2_XL", "zeroscope-zs2_XL-fp16")):
        assert default_goal(ModelFolder(name, tmp_path), tmp_path) == tmp_path / "text2video" / folder


def test_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_model_folder(tmp_path / "text2video" / "mine")
    assert main(["convert", "mine", "--models-dir", str(tmp_path)]) == 0
    assert "read back" in capsys.readouterr().out
    assert load_model(tmp_path / "text2video" / "mine-fp16", CPU).config.unet == small_config().unet
    assert main(["convert", str(folder), "--models-dir", str(tmp_path)]) == 1
    assert "already exists" in capsys.readouterr().err
