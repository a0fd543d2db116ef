"""Folders as people name them, and the free space on their disks."""

import logging
from pathlib import Path
from types import SimpleNamespace

import pytest

from sd_t2v.modelscope.errors import RequestError
from sd_t2v.t2v_helpers.commands.models import main
from sd_t2v.t2v_helpers.disk import expand_home, find_shortage, free_space, split_folders

NOBODY = "~no-such-user-1f3a/videos"


def test_a_home_is_expanded_and_that_of_nobody_is_refused() -> None:
    assert expand_home("~/videos") == Path.home() / "videos"
    assert expand_home("videos/~x") == Path("videos/~x")
    with pytest.raises(RequestError, match=r"~no-such-user-1f3a/videos' refers to the home of an unknown user"):
        expand_home(NOBODY)


def test_a_setting_leaves_out_the_folders_of_nobody_and_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        assert split_folders(f" {tmp_path} ;{NOBODY}; ;videos") == (tmp_path, Path("videos"))
    assert "refers to the home of an unknown user" in caplog.text


@pytest.mark.parametrize("option", ["--output", "--lora-dir"])
def test_no_folder_of_that_name_is_made(
    option: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit):
        main(["convert", "miniature (bundled demo)", "--models-dir", str(tmp_path), option, NOBODY])
    assert "refers to the home of an unknown user" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_space_is_said_where_it_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert (free_space(tmp_path) or 0) > 0
    assert free_space(tmp_path / "none") is None
    assert not find_shortage(tmp_path, 1)
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(total=10**12, free=2 * 10**9))
    assert find_shortage(tmp_path, 3 * 10**9) == "needs 3.00 GB, but the disk has only 2.00 GB free. Free some space."
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(total=0, free=0))
    assert free_space(tmp_path) is None and not find_shortage(tmp_path, 1)
