"""Ends commands at random moments and prints the results: `python tools/end_commands.py --times 50`.

To be run with the Python of .venv, on a system with POSIX signals. Ctrl-C and SIGTERM have to end a command with one
line, its exit code and no half-made files. The next command in the same folder has to remove what SIGKILL leaves.
"""

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[1]
LAUNCHER = [sys.executable, "-m", "sd_t2v.t2v_helpers.commands.launcher"]
OUTCOMES = ("correct", "already finished", "traceback", "wrong exit code", "not one line", "left something")
LONGEST = 120
"""Maximum number of seconds that a command may take."""


class Trial(NamedTuple):
    """A command to end.

    arguments: returns the command's arguments for an empty folder; begun: patterns of half-made files in the folder;
    seconds: the command's duration.
    """

    name: str
    arguments: Callable[[Path], list[str]]
    begun: tuple[str, ...]
    seconds: float


def _demo(folder: Path) -> list[str]:
    small = ["--steps", "4", "--frames", "8", "--width", "64", "--height", "64", "--formats", "MP4,GIF,PNG frames"]
    return ["demo", "a red ball", *small, "--output-dir", str(folder)]


def _convert(folder: Path) -> list[str]:
    shutil.rmtree(folder / "text2video" / "m-fp16", ignore_errors=True)
    shutil.copytree(ROOT / "miniature" / "model", folder / "text2video" / "m", dirs_exist_ok=True)
    return ["convert", "m", "--models-dir", str(folder)]


TRIALS = (
    Trial("demo", _demo, ("*/*.partial*", "*/*.reserved"), 5.0),
    Trial("convert", _convert, ("text2video/.*.part",), 4.0),
    Trial("doctor", lambda folder: ["doctor", "--models-dir", str(folder)], (), 3.0),
)


def main() -> int:
    """Run the command line, and return 1 if something was not as it should be."""
    parser = argparse.ArgumentParser(prog="end_commands.py", description=__doc__)
    parser.add_argument("--times", type=int, default=20, help="how often for each command and signal; default: 20")
    parser.add_argument("--seed", type=int, default=0, help="the same number chooses the same moments; default: 0")
    options = parser.parse_args()
    print(_row("command", "ended by", "times", *OUTCOMES))
    print(_row(*["---"] * (3 + len(OUTCOMES))))
    wrong = 0
    for trial in TRIALS:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
            found = _end_often(trial, number, options.times, Random(options.seed))
            print(_row(trial.name, number.name, str(options.times), *(str(found[one]) for one in OUTCOMES)), flush=True)
            wrong += sum(found[one] for one in OUTCOMES[2:])
    return int(wrong > 0)


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _end_often(trial: Trial, number: signal.Signals, times: int, random: Random) -> Counter[str]:
    found: Counter[str] = Counter()
    for _ in range(times):
        with tempfile.TemporaryDirectory() as folder:
            found[_end_once(trial, Path(folder), number, random.uniform(0, trial.seconds))] += 1
    return found


def _end_once(trial: Trial, folder: Path, number: signal.Signals, after: float) -> str:
    """End a command once, and return the verdict."""
    with _start(trial.arguments(folder)) as child:
        time.sleep(after)
        os.killpg(child.pid, number)
        said = child.communicate(timeout=LONGEST)[1]
    if number == signal.SIGKILL:
        with _start(trial.arguments(folder)) as again:
            said = again.communicate(timeout=LONGEST)[1]
    return _judge(said, child.returncode, number, any(list(folder.glob(one)) for one in trial.begun))


def _start(arguments: list[str]) -> "subprocess.Popen[str]":
    """Start a command as run.py does, with signals blocked until the command handles them."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    options: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "stdin": subprocess.DEVNULL}
    options |= {"env": environment, "start_new_session": True, "preexec_fn": _block}
    return subprocess.Popen([*LAUNCHER, *arguments], text=True, **options)


def _block() -> None:
    # A shell makes background processes ignore Ctrl-C.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})


def _judge(said: str, code: int, number: signal.Signals, left: bool) -> str:
    """Return the first verdict that applies."""
    killed = number == signal.SIGKILL
    lines = sum(line.startswith("Interrupted") for line in said.splitlines())
    verdicts = {
        "traceback": "Traceback" in said or "Exception ignored" in said,
        "left something": left,
        "already finished": code in (0, 1) and not lines,
        "wrong exit code": code != (-number if killed else 128 + number),
        "not one line": not killed and lines != 1,
        "correct": True,
    }
    return next(verdict for verdict, holds in verdicts.items() if holds)


if __name__ == "__main__":
    sys.exit(main())
