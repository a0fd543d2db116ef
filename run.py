"""Runs the project's commands inside .venv, which it makes once beside this file. Standard library only."""

import sys

# Above all that an old Python would stumble over; the whole file has to parse there.
if sys.version_info < (3, 10):  # noqa: UP036
    sys.exit(f"run.py needs Python 3.10 or newer; this is Python {sys.version.split()[0]} at {sys.executable}.")

import os
import subprocess
from typing import NamedTuple

from run_venv import NEWEST_PYTHON, PYTHON, ROOT, TORCH, Problem, dotted, free_space, prepare, say

INTERRUPTED = 130
# How a child ended by Ctrl-C looks: by our own convention, by signal, and on Windows.
INTERRUPTED_CODES = (INTERRUPTED, -2, 0xC000013A)
# Else a file in the person's folder could stand in for a module of ours.
SAFE_PATH = ("-P",) if sys.version_info >= (3, 11) else ()


class Command(NamedTuple):
    """What a command is for, the requirement files that it needs, and the arguments of each Python that it starts."""

    summary: str
    requirements: tuple[str, ...]
    steps: tuple[tuple[str, ...], ...]
    at_root: bool = False


ENGINE = (TORCH, "demo.txt")
LINT = (("-m", "ruff", "check"), ("-m", "ruff", "format", "--check"), (".ci/typecheck.py",))
# Some files at once, which is quicker than threads inside of operations. In their order: the longest come first.
PYTEST = (("-m", "pytest", "-n", "logical", "--maxprocesses", "4", "--dist", "loadfile", "--no-loadscope-reorder"),)
MODELS_CLI = "sd_t2v.t2v_helpers.models_cli"
COMMANDS = {
    "demo": Command(
        "make a video from a prompt with the bundled miniature", ENGINE, (("-m", "sd_t2v.t2v_helpers.cli"),)
    ),
    "ui": Command(
        "serve the tab on a page of its own", (*ENGINE, "ui.txt"), (("-m", "sd_t2v.t2v_helpers.host.standalone"),)
    ),
    "test": Command("run the tests", (*ENGINE, "ui.txt", "rivals.txt", "test.txt"), PYTEST, at_root=True),
    "lint": Command("check style and types", (*ENGINE, "lint.txt"), LINT, at_root=True),
    "download": Command("list or download known models", ENGINE, (("-m", MODELS_CLI, "download"),)),
    "doctor": Command("say what is right or wrong with each model", ENGINE, (("-m", MODELS_CLI, "doctor"),)),
    "convert": Command("write a model anew: half precision, safetensors", ENGINE, (("-m", MODELS_CLI, "convert"),)),
    "train": Command("train the miniature anew", ENGINE, (("-m", "sd_t2v.miniature.train"),)),
    "train-lora": Command("train the miniature's LoRA anew", ENGINE, (("-m", "sd_t2v.miniature.train_lora"),)),
    "judge": Command("judge the miniature's videos", ENGINE, (("-m", "sd_t2v.miniature.evaluate"),)),
    "bench": Command("measure beside the rivals", (*ENGINE, "rivals.txt"), (("-m", "sd_t2v.benchmarks.bench"),)),
}

HELP = """usage: python run.py [--own-torch] COMMAND [ARGUMENTS...]

{commands}

COMMAND --help lists a command's own arguments. The first start makes .venv beside run.py and installs what the
command needs; later starts find it there. Delete .venv to start afresh.

Whose torch:
  The pinned one, for Python 3.10 to {newest}. On Linux it brings CUDA libraries, about 3 GB to download.
  TORCH_COMMAND   an environment variable with the pip arguments that install another one, as for the WebUI:
                  TORCH_COMMAND="pip install torch torchvision --index-url ..." (pytorch.org shows them for a CPU,
                  CUDA or ROCm). It stays until another is given or .venv is deleted.
  --own-torch     use torch and all other packages of the Python that runs run.py, say the WebUI's own. To be given
                  at each start.
"""


def main(arguments: list[str]) -> int:
    """Run the named command and return its exit code."""
    own_torch = arguments[:1] == ["--own-torch"]
    name, *rest = arguments[own_torch:] or [""]
    if name in {"-h", "--help"}:
        print(help_text())
        return 0
    if name not in COMMANDS:
        print(help_text() + (f"\nrun.py: unknown command {name!r}" if name else ""), file=sys.stderr)
        return 2
    return guarded(name, rest, own_torch)


def help_text() -> str:
    """The help with the table of commands."""
    commands = "\n".join(f"  {name:10} {command.summary}" for name, command in COMMANDS.items())
    return HELP.format(commands=commands, newest=dotted(NEWEST_PYTHON))


def guarded(name: str, arguments: list[str], own_torch: bool) -> int:
    """Prepare and start a command; a person sees messages, never a traceback."""
    try:
        prepare(name, COMMANDS[name].requirements, own_torch)
        return start(COMMANDS[name], arguments)
    except KeyboardInterrupt:
        return INTERRUPTED
    except Problem as problem:
        say(str(problem))
    except OSError as error:
        say(f"{error}. May you write in {ROOT}, and is there space ({free_space()})?")
    return 1


def start(command: Command, arguments: list[str]) -> int:
    """Run all steps; the exit code is the first that is not 0. Arguments go to a command of one step only."""
    if arguments and len(command.steps) > 1:
        raise Problem("this command takes no arguments.")
    if command.at_root:
        os.chdir(ROOT)
    path = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path)}
    lines = [[str(PYTHON), *SAFE_PATH, *step, *arguments] for step in command.steps]
    if len(lines) == 1 and os.name != "nt":
        # In place of this process: signals and the exit code need no passing on.
        os.execve(PYTHON, lines[0], environment)
    codes = [run_to_end(line, environment) for line in lines]
    return next(filter(None, codes), 0)


def run_to_end(line: list[str], environment: dict[str, str]) -> int:
    """Wait for a child that gets Ctrl-C from the console itself. Raises KeyboardInterrupt if it ended by that."""
    child = subprocess.Popen(line, env=environment)
    while child.returncode is None:
        try:
            child.wait()
        except KeyboardInterrupt:
            continue
    if child.returncode in INTERRUPTED_CODES:
        raise KeyboardInterrupt
    return 128 - child.returncode if child.returncode < 0 else child.returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
