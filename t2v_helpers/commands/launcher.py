"""Starts a command so that Ctrl-C, SIGTERM and a closed output end it with a message. All commands start this way.

Only light modules are imported before signals are handled, since importing torch takes seconds.
"""

import os
import sys
from importlib import import_module
from typing import NamedTuple, NoReturn

from .. import signals


class Command(NamedTuple):
    """A command's module, and what to say when it is interrupted.

    cleans_up: whether the command needs an exception to clean up what it has begun; first: arguments that precede those
    on the command line.
    """

    module: str
    interrupted: str
    cleans_up: bool = False
    first: tuple[str, ...] = ()


MODELS_CLI = ".t2v_helpers.commands.models"
AGAIN = "run the same command again to continue."
COMMANDS = {
    "demo": Command(".t2v_helpers.commands.demo", "no file was left behind."),
    "ui": Command(".t2v_helpers.commands.page", "the page is closed."),
    "models": Command(MODELS_CLI, "what was done so far is kept.", cleans_up=True),
    "doctor": Command(MODELS_CLI, "what was done so far is kept.", cleans_up=True, first=("doctor",)),
    "convert": Command(MODELS_CLI, "no unfinished model was left behind.", cleans_up=True, first=("convert",)),
    "download": Command(MODELS_CLI, AGAIN, cleans_up=True, first=("download",)),
    "train": Command(".miniature.train", AGAIN),
    "train-lora": Command(".miniature.train_lora", AGAIN),
    "judge": Command(".miniature.evaluate", "the tables are incomplete."),
    "bench": Command(".benchmarks.bench", "the report is incomplete.", cleans_up=True),
}


PATIENCE = {"GOMP_SPINCOUNT": "10000", "KMP_BLOCKTIME": "1"}
"""Limits on how long torch's threads spin while they wait for each other: in loop turns for GNU's OpenMP, in
milliseconds for Intel's and LLVM's. By default they spin so long that a busy computer makes hardly any progress."""


def launch(name: str, arguments: list[str]) -> NoReturn:
    """Run a command, and exit with its code."""
    signals.guard()
    _limit_spinning()
    from .streams import report_lost_output, steady_streams

    steady_streams()
    code = _obeying_signals(name, arguments)
    report_lost_output()
    signals.ignore()
    sys.exit(code)


def _limit_spinning() -> None:
    """Set `PATIENCE` unless a person has set such variables. torch reads them once, when it is imported."""
    if not {"OMP_WAIT_POLICY", *PATIENCE} & os.environ.keys():
        os.environ.update(PATIENCE)


def _obeying_signals(name: str, arguments: list[str]) -> int:
    try:
        return _run(name, arguments)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(bool(end.code))
    finally:
        # A library may have swallowed or replaced the exception.
        if signals.received():
            signals.leave()


def _run(name: str, arguments: list[str]) -> int:
    command = COMMANDS[name]
    sys.argv[:] = [f"run.py {name}", *command.first, *arguments]
    main = import_module(command.module, "sd_t2v").main
    signals.set_last_line(f"Interrupted; {command.interrupted}")
    if not command.cleans_up:
        return main() or 0
    with signals.raising():
        return main() or 0


if __name__ == "__main__":
    launch(sys.argv[1], sys.argv[2:])
