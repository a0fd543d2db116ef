"""Every command is ended at many moments: one line, the exit code that shells expect, and nothing half made."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
LAUNCHER = "sd_t2v.t2v_helpers.commands.launcher"
SMALL = ("x", "--steps", "2", "--frames", "2", "--width", "32", "--height", "32")
COMMANDS = ("ui", "doctor", "convert", "download", "train", "train-lora", "judge", "bench")
posix_only = pytest.mark.skipif(os.name == "nt", reason="signals as POSIX has them")


def started(*arguments: object, module: str = LAUNCHER, **options: Any) -> "subprocess.Popen[str]":
    """A command whose signals wait until it obeys them, as run.py has them."""
    line = [sys.executable, "-m", module, *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "env": environment, **options}
    return subprocess.Popen(line, text=True, preexec_fn=blocked, start_new_session=True, **options)  # noqa: PLW1509


def blocked() -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})


def check_end(child: "subprocess.Popen[str]", number: int) -> str:
    """What the child has said, after its end was as it should be."""
    _, said = child.communicate(timeout=60)
    assert "Traceback" not in said and "Exception ignored" not in said, said
    assert child.returncode == 128 + number, said
    (line,) = (line for line in said.splitlines() if "nterrupted" in line)
    assert re.match("Interrupted( twice)?; ", line)
    return line


@posix_only
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("after", [0.0, 0.7, 1.4])
def test_a_start_can_be_ended_at_any_moment(number: int, after: float, tmp_path: Path) -> None:
    with started("demo", *SMALL, "--steps", 500, "--output-dir", tmp_path) as child:
        time.sleep(after)
        os.killpg(child.pid, number)
        check_end(child, number)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


@posix_only
@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_can_be_ended_while_it_starts(name: str, tmp_path: Path) -> None:
    arguments = {
        "train": ("--work", tmp_path),
        "train-lora": ("--work", tmp_path),
        "convert": (ROOT / "miniature" / "model",),
    }
    with started(name, *arguments.get(name, ()), cwd=tmp_path) as child:
        time.sleep(0.3)
        os.killpg(child.pid, signal.SIGTERM)
        check_end(child, signal.SIGTERM)


SAVING = """
import os, signal, sys, time, torch
from pathlib import Path
from sd_t2v.t2v_helpers import signals
from sd_t2v.t2v_helpers.commands import launcher
from sd_t2v.t2v_helpers.video.formats import FORMATS
from sd_t2v.t2v_helpers.generation.outputs import reserved_stem
from sd_t2v.t2v_helpers.video.write import write_video

folder, wait = Path(sys.argv[1]), float(sys.argv[2])
signals.guard()
signals.set_last_line("Interrupted; no file was left behind.")
clip = torch.randint(0, 255, (60, 256, 256, 3), dtype=torch.uint8)
for number in range(10**6):
    with signals.held(), reserved_stem(folder, "[number]", {}) as stem:
        for kind in (FORMATS["MP4"], FORMATS["PNG frames"]):
            if number == 0 and kind.name == "MP4":
                signal.signal(signal.SIGALRM, lambda *_: os.kill(os.getpid(), signal.SIGINT))
                signal.setitimer(signal.ITIMER_REAL, wait)
            write_video(stem.with_name(stem.name + kind.suffix), clip, 8, kind, "Steps: 3")
"""


@posix_only
def test_nothing_half_written_stays_whenever_saving_is_ended(tmp_path: Path) -> None:
    for moment in range(6):
        folder = tmp_path / str(moment)
        folder.mkdir()
        line = [sys.executable, "-c", SAVING, str(folder), str(0.02 + moment * 0.2)]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path), "OMP_NUM_THREADS": "1"}
        with subprocess.Popen(line, text=True, stdout=-1, stderr=-1, env=environment) as child:
            check_end(child, signal.SIGINT)
        assert all(re.fullmatch(r"\d{5}(\.mp4)?", path.name) for path in folder.iterdir()), os.listdir(folder)
        assert not list(tmp_path.glob("tmp*"))
        assert "ffmpeg" not in children_of(child.pid)


def children_of(session: int) -> str:
    command = ["ps", "-o", "args=", "--ppid", str(session)]
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=300).stdout


PROGRAM = """
import os, signal, sys, time
from sd_t2v.t2v_helpers import signals
signals.guard()
signals.set_last_line("Interrupted; ended in words.")
{body}
"""


def run_program(body: str) -> "subprocess.Popen[str]":
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    line = [sys.executable, "-c", PROGRAM.format(body=body)]
    return subprocess.Popen(line, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment)


@posix_only
def test_what_a_destructor_swallows_comes_again() -> None:
    body = """
class Fragile:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGINT)
        for _ in range(1000): pass
def main():
    with signals.raising():
        Fragile()
        time.sleep(60)
try:
    main()
finally:
    print("cleaned up", flush=True)
    signals.leave()
"""
    with run_program(body) as child:
        check_end(child, signal.SIGINT)


@posix_only
def test_a_second_signal_ends_what_cleans_up_for_ever() -> None:
    body = """
try:
    with signals.raising():
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(60)
finally:
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(60)
"""
    with run_program(body) as child:
        assert "twice" in check_end(child, signal.SIGTERM)


@posix_only
def test_a_server_is_asked_to_end_and_can_end_in_its_own_time() -> None:
    body = """
ending = []
with signals.call_on_signal(lambda: ending.append(1)):
    os.kill(os.getpid(), signal.SIGTERM)
    while not ending: time.sleep(0.01)
    print("served to the end", flush=True)
assert signals.received()
signals.leave()
"""
    with run_program(body) as child:
        check_end(child, signal.SIGTERM)


@posix_only
def test_what_a_shell_has_ignored_stays_ignored() -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    body = PROGRAM.format(body="os.kill(os.getpid(), signal.SIGINT); print('still here')")
    line = ["sh", "-c", "trap '' INT; exec \"$@\"", "sh", sys.executable, "-c", body]
    assert subprocess.run(line, check=True, capture_output=True, env=environment, timeout=300).stdout == b"still here\n"


@posix_only
@pytest.mark.parametrize("closed", ["| true", "> /dev/full", "2> /dev/full", ">&- 2>&-"])
def test_a_video_is_made_whoever_reads(closed: str, tmp_path: Path) -> None:
    line = [sys.executable, "-m", LAUNCHER, "demo", *SMALL, "--steps", "1", "--output-dir", str(tmp_path)]
    script = f'set -o pipefail; "$@" {closed}'
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    result = subprocess.run(
        ["bash", "-c", script, "bash", *line], check=False, capture_output=True, text=True, env=environment, timeout=120
    )
    assert result.returncode == 0, result.stderr
    assert len(list(tmp_path.rglob("*.mp4"))) == 1
    assert "Traceback" not in result.stderr and "Exception ignored" not in result.stderr
    words = [line for line in re.split(r"[\r\n]+", result.stderr) if line and "step" not in line]
    assert len(words) <= 1 and all("could not be written" in line for line in words)


@posix_only
def test_a_name_that_the_console_cannot_write_ends_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "影 ü"
    line = [sys.executable, "-m", LAUNCHER, "demo", *SMALL, "--output-dir", str(folder)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "ascii"}
    result = subprocess.run(line, check=False, capture_output=True, env=environment, timeout=120)
    assert result.returncode == 0, result.stderr
    assert b"Click here" in result.stdout
