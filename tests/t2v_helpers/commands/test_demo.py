"""The command line as a person meets it: real processes, real files."""

import dataclasses
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import imageio_ffmpeg
import pytest

from sd_t2v.miniature.recipe import MODEL_FOLDER
from sd_t2v.t2v_helpers.request import GenerationRequest

ROOT = Path(__file__).resolve().parents[3]
QUICK = ("--steps", "3", "--frames", "4", "--seed", "5")


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "sd_t2v.t2v_helpers.commands.demo", *map(str, arguments)]


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}


def run(*arguments: object, cwd: Path | None = None) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        command(*arguments), env=environment(), cwd=cwd, capture_output=True, text=True, timeout=300, check=False
    )


def video_in(output: str) -> Path:
    uri = re.search(r"Click here: file://(\S+)", output)
    assert uri, output
    return Path(uri[1].replace("%20", " "))


def decoded(path: Path) -> tuple[dict[str, object], list[bytes]]:
    reader = imageio_ffmpeg.read_frames(str(path))
    meta = next(reader)
    return meta, list(reader)


def test_a_prompt_becomes_an_mp4(tmp_path: Path) -> None:
    result = run("a red ball moving left", *QUICK, "--fps", 5, "--output-dir", tmp_path / "my videos")
    assert result.returncode == 0, result.stderr
    assert "done" in result.stdout
    assert "sampling: 100%" in result.stderr
    path = video_in(result.stdout)
    assert re.fullmatch(r"\d{4}-\d\d-\d\d/00000-5\.mp4", path.relative_to(tmp_path / "my videos").as_posix())
    meta, frames = decoded(path)
    assert (meta["codec"], meta["size"], meta["fps"], len(frames)) == ("h264", (64, 64), 5.0, 4)
    assert str(meta["pix_fmt"]).startswith("yuv420p")
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_the_same_seed_gives_the_same_file_and_never_overwrites(tmp_path: Path) -> None:
    first, second = (video_in(run("a", *QUICK, "--output-dir", tmp_path).stdout) for _ in range(2))
    assert first.name == "00000-5.mp4"
    assert second.name == "00001-5.mp4"
    assert first.read_bytes() == second.read_bytes()


def test_sizes_that_are_no_multiple_of_64_and_one_frame(tmp_path: Path) -> None:
    options = ("--width", 72, "--height", 40, "--frames", 1, "--steps", 1, "--sampler", "Euler a", "--cfg-scale", 1)
    result = run("", *options, "--output-dir", tmp_path, cwd=tmp_path)
    meta, frames = decoded(video_in(result.stdout))
    assert (meta["size"], len(frames)) == ((72, 40), 1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--width", "0"), "Width must be from 16"),
        (("--height", "-8"), "Height must be from 16"),
        (("--width", "65"), "multiple of 8"),
        (("--steps", "many"), "Steps must be a whole number, not 'many'"),
        (("--seed", "1" + "0" * 400), "Seed must be a whole number"),
        (("--frames", "0"), "Frames must be from 1"),
        (("--frames", "10000"), "Frames must be from 1 to 1000"),
        (("--cfg-scale", "nan"), "finite"),
        (("--sampler", "LMS"), "Choose one of: DDIM, "),
        (("--device", "abacus"), "device 'abacus' cannot be used"),
        (("--model", "no/such/folder"), "there is no such folder"),
        (("--model", __file__), "is a file"),
        (("--output-dir", __file__), "could not be written to"),
    ],
)
def test_bad_input_is_one_short_line(options: tuple[str, ...], message: str, tmp_path: Path) -> None:
    where = () if "--output-dir" in options else ("--output-dir", tmp_path)
    result = run("x", *options, *where)
    assert result.returncode == 1
    (line,) = result.stderr.splitlines()
    assert line.startswith("Error: ")
    assert message in line
    assert "Traceback" not in result.stderr
    assert not list(tmp_path.rglob("*.mp4"))


def test_debug_shows_where_an_error_came_from(tmp_path: Path) -> None:
    result = run("x", "--width", "0", "--debug", "--output-dir", tmp_path)
    assert result.returncode != 0
    assert "Traceback" in result.stderr


def test_a_half_downloaded_model_is_named(tmp_path: Path) -> None:
    model = shutil.copytree(MODEL_FOLDER, tmp_path / "model")
    weights = model / "text2video_pytorch_model.pth"
    weights.write_bytes(weights.read_bytes()[:1_000_000])
    result = run("x", "--model", model, "--output-dir", tmp_path / "out")
    assert result.returncode == 1
    assert "text2video_pytorch_model.pth: the download is not complete (1,000,000 bytes so far)" in result.stderr


@pytest.mark.skipif(os.name == "nt", reason="Windows has no file-size limit per process")
def test_no_space_left_leaves_no_file_and_names_the_folder(tmp_path: Path) -> None:
    limited = ["bash", "-c", 'ulimit -f 4; exec "$@"', "bash"]
    result = subprocess.run(
        [*limited, *command("x", *QUICK, "--width", 256, "--height", 256, "--steps", 1, "--output-dir", tmp_path)],
        env={**environment(), "PYTHONDONTWRITEBYTECODE": "1"}, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert result.returncode == 1, result.stderr
    assert f"could not be written to {tmp_path}" in result.stderr
    assert "free space" in result.stderr
    assert "Traceback" not in result.stderr
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


@pytest.mark.skipif(os.name == "nt", reason="SIGINT cannot be sent to one process there")
def test_ctrl_c_ends_within_a_step_and_leaves_no_file(tmp_path: Path) -> None:
    process = subprocess.Popen(
        command("x", "--steps", 500, "--output-dir", tmp_path), env=environment(), stderr=subprocess.PIPE
    )
    assert process.stderr
    seen = b""
    while not re.search(rb"sampling:\s+[1-9]", seen):
        more = os.read(process.stderr.fileno(), 1000)
        assert more, seen.decode()
        seen += more
    start = time.monotonic()
    process.send_signal(signal.SIGINT)
    rest = process.stderr.read()
    assert process.wait(30) == 130
    assert time.monotonic() - start < 10
    assert b"Interrupted" in rest
    assert b"Traceback" not in rest
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


@pytest.mark.skipif(os.name == "nt", reason="SIGTERM ends a process at once there")
def test_what_was_finished_before_an_interrupt_stays_and_is_counted(tmp_path: Path) -> None:
    process = subprocess.Popen(
        command("x", *QUICK, "--steps", 1, "--batch-count", 100, "--output-dir", tmp_path),
        env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout
    while "done" not in (line := process.stdout.readline()):
        assert line, process.communicate()
    process.send_signal(signal.SIGTERM)
    said = process.communicate(timeout=60)[1]
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert process.returncode == 143
    assert {path.suffix for path in files} == {".mp4"} and all(decoded(path)[1] for path in files)
    count = re.search(
        r"Interrupted; (\d+) finished files? (?:was|were) kept in (.+), and nothing else was left behind\.", said
    )
    assert count and (int(count[1]), count[2]) == (len(files), str(files[0].parent)), said


def test_a_folder_named_with_percent_signs_takes_every_format(tmp_path: Path) -> None:
    result = run("x", *QUICK, "--steps", 1, "--formats", "MP4,WebP", "--output-dir", tmp_path / "100%done %3d")
    assert (result.returncode, result.stdout.count("Click here")) == (0, 2), result.stderr


@pytest.mark.skipif(os.name == "nt", reason="the fake is a shell script")
def test_a_format_that_is_missing_is_exit_code_1(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = tmp_path / "ffmpeg-without-x264"
    refuses = "for a; do [ $a = libx264 ] && { echo Unknown encoder $a >&2; exit 1; }; done"
    fake.write_text(f'#!/bin/bash\n{refuses}\nexec "{imageio_ffmpeg.get_ffmpeg_exe()}" "$@"\n')
    fake.chmod(0o755)
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(fake))
    result = run("x", *QUICK, "--steps", 1, "--formats", "MP4,GIF", "--output-dir", tmp_path / "out")
    assert result.returncode == 1
    assert result.stdout.count("Click here") == 1 and ".gif" in result.stdout
    said = result.stderr.splitlines()[-1]
    assert said.startswith("Error: MP4 cannot be written by ") and "libx264" in said and "IMAGEIO_FFMPEG_EXE" in said
    assert "Exit code: 0 if everything" in run("--help").stdout


def test_an_ffmpeg_that_is_not_there_is_named_before_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(tmp_path / "gone" / "ffmpeg"))
    result = run("x", *QUICK, "--output-dir", tmp_path)
    (line,) = result.stderr.splitlines()
    assert result.returncode == 1
    assert "cannot be started" in line and "IMAGEIO_FFMPEG_EXE points to it" in line and "pip" not in line


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="a place that takes no files, as Linux has it")
def test_a_place_that_takes_no_files_is_one_sentence() -> None:
    for place in ("/proc/videos", "/dev/full", "/dev/null/videos"):
        result = run("x", *QUICK, "--output-dir", place)
        (line,) = result.stderr.splitlines()
        assert result.returncode == 1
        assert f"could not be written to {place}" in line and "free space" not in line


def test_every_field_of_the_request_is_an_option() -> None:
    text = run("--help").stdout
    for field in dataclasses.fields(GenerationRequest):
        assert field.name == "prompt" or f"--{field.name.replace('_', '-')} " in text
