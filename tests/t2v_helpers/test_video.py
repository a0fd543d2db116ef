"""Writing files: complete or not at all."""

import os
from collections.abc import Iterator
from pathlib import Path

import imageio_ffmpeg
import pytest
import torch

from sd_t2v.t2v_helpers.outputs import folder_of_today, reserved_path
from sd_t2v.t2v_helpers.video import OutputError, find_ffmpeg, write_mp4


def gradient(frames: int, height: int, width: int) -> torch.Tensor:
    ramp = torch.linspace(40, 210, width).view(1, 1, width, 1)
    shift = torch.linspace(0, 30, frames).view(frames, 1, 1, 1)
    return (ramp + shift).expand(frames, height, width, 3).to(torch.uint8)


def test_frames_survive_the_round_trip(tmp_path: Path) -> None:
    frames = gradient(7, 48, 72)
    write_mp4(tmp_path / "a.mp4", frames, 12.5)
    reader = imageio_ffmpeg.read_frames(str(tmp_path / "a.mp4"))
    meta = next(reader)
    decoded = torch.stack([torch.frombuffer(bytearray(data), dtype=torch.uint8).view(48, 72, 3) for data in reader])
    assert (meta["codec"], meta["fps"], decoded.shape) == ("h264", 12.5, frames.shape)
    assert float((decoded.float() - frames.float()).abs().mean()) < 3
    assert os.listdir(tmp_path) == ["a.mp4"]


def test_a_failing_encoder_leaves_nothing_and_says_where(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"could not be written to .*Check the free space"):
        write_mp4(tmp_path / "missing" / "a.mp4", gradient(2, 16, 16), 8)
    (tmp_path / "b.mp4").mkdir()
    with pytest.raises(OutputError):
        write_mp4(tmp_path / "b.mp4", gradient(2, 16, 16), 8)
    assert os.listdir(tmp_path) == ["b.mp4"]


def test_a_missing_ffmpeg_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent() -> str:
        raise RuntimeError("No ffmpeg exe could be found.")

    monkeypatch.setattr(imageio_ffmpeg, "get_ffmpeg_exe", absent)
    with pytest.raises(OutputError, match="pip install imageio-ffmpeg"):
        find_ffmpeg()


def test_ffmpeg_does_not_hear_the_consoles_ctrl_c(tmp_path: Path) -> None:
    class Interrupting:
        shape = (9, 16, 16, 3)

        def __iter__(self) -> Iterator[torch.Tensor]:
            yield torch.zeros(16, 16, 3, dtype=torch.uint8)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_mp4(tmp_path / "a.mp4", Interrupting(), 8)  # type: ignore[arg-type]
    assert os.listdir(tmp_path) == []


def test_names_count_up_and_are_given_once(tmp_path: Path) -> None:
    (tmp_path / "00041-7.mp4").touch()
    with reserved_path(tmp_path, 9, ".mp4") as first, reserved_path(tmp_path, 9, ".mp4") as second:
        assert (first.name, second.name) == ("00042-9.mp4", "00043-9.mp4")


def test_a_failed_block_gives_its_name_back(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), reserved_path(tmp_path, 1, ".mp4"):
        raise KeyboardInterrupt
    assert os.listdir(tmp_path) == []


def test_an_output_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="could not be written to"):
        folder_of_today(tmp_path / "file")
