"""Which files somebody may name."""

import os
from pathlib import Path

import pytest

from sd_t2v.modelscope.errors import RequestError
from sd_t2v.t2v_helpers.readable_files import COMMAND_LINE, Reader, find_readable, readable_folders


@pytest.fixture
def inside(tmp_path: Path) -> Path:
    """A folder whose files may be named, and beside it a file that may not."""
    folder = tmp_path / "may"
    folder.mkdir()
    (folder / "a.mp4").write_bytes(b"ours")
    (tmp_path / "secret.mp4").write_bytes(b"secret")
    return folder


def test_a_file_in_a_folder_that_may_be_named_is_found(inside: Path) -> None:
    assert find_readable(str(inside / "a.mp4"), Reader(folders=(inside,))) == (inside / "a.mp4").resolve()


@pytest.mark.parametrize("name", ["secret.mp4", "may/../secret.mp4", "may/link.mp4", "may/away/secret.mp4"])
def test_no_path_and_no_link_leaves_it(name: str, inside: Path, tmp_path: Path) -> None:
    try:
        (inside / "link.mp4").symlink_to(tmp_path / "secret.mp4")
        (inside / "away").symlink_to(tmp_path, target_is_directory=True)
    except OSError:
        pytest.skip("this user may make no links")
    with pytest.raises(RequestError, match="that you may read from here"):
        find_readable(str(tmp_path / name), Reader(folders=(inside,)))


def test_what_may_not_be_read_is_not_even_looked_for(inside: Path, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="that you may read from here"):
        find_readable(str(tmp_path / "not there.mp4"), Reader(folders=(inside,)))


def test_nobody_names_anything_without_folders(inside: Path) -> None:
    with pytest.raises(RequestError, match="that you may read from here"):
        find_readable(str(inside / "a.mp4"), Reader())


@pytest.mark.parametrize(
    "name", ["http://127.0.0.1/a.mp4", "HTTPS://x/y", "file:///etc/passwd", "concat:a|b", "data:,x", " ftp://x", "s3:x"]
)
def test_no_address_is_a_file_for_anybody(name: str) -> None:
    with pytest.raises(RequestError, match="looks like an address"):
        find_readable(name, COMMAND_LINE)


@pytest.mark.parametrize("name", ["", "nowhere.mp4", ".", "a\0b", "x" * 5000, "\ud83c"])
def test_what_is_no_file_is_said(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RequestError, match="There is no file") as refused:
        find_readable(name, COMMAND_LINE)
    assert str(refused.value).isprintable()


@pytest.mark.skipif(os.name == "nt", reason="Windows has none of these")
def test_a_pipe_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for name in (str(tmp_path / "pipe"), "/dev/zero"):
        with pytest.raises(RequestError, match="There is no file"):
            find_readable(name, COMMAND_LINE)


def test_the_command_line_names_any_file(inside: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(inside)
    assert find_readable("../secret.mp4", COMMAND_LINE) == (tmp_path / "secret.mp4").resolve()


def test_relative_folders_in_the_setting_count_for_nothing(tmp_path: Path) -> None:
    assert readable_folders(f" {tmp_path} ; ;videos;.") == (tmp_path,)
