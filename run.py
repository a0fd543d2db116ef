"""Runs the project's commands inside .venv, which it creates next to this file. Uses only the standard library."""

import sys

# Checked before anything that an old Python cannot run; the whole file has to be valid syntax there.
if sys.version_info < (3, 10):  # noqa: UP036
    sys.exit(f"run.py needs Python 3.10 or newer; this is Python {sys.version.split()[0]} at {sys.executable}.")

import os
import signal

ENDINGS = {getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK") if hasattr(signal, name)}
INTERRUPTED = 130


def leave(number: int, _: object = None, words: str = "the command had not started") -> None:
    """End immediately, with one line. The next start repeats an installation that was interrupted."""
    try:
        os.write(2, f"\nInterrupted; {words}.\n".encode())
    finally:
        os._exit(INTERRUPTED if number == getattr(signal, "SIGBREAK", None) else 128 + number)


if __name__ == "__main__":
    # Before anything that takes time. Ignored signals stay ignored: a shell ignores Ctrl-C for background processes.
    for ending in ENDINGS:
        if signal.getsignal(ending) is not signal.SIG_IGN:
            signal.signal(ending, leave)

from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import NamedTuple, TextIO

# The package is imported by its path: with -I or -P, Python does not search the script's folder.
spec = spec_from_file_location("sd_t2v", Path(__file__).with_name("sd_t2v.py"))
assert spec and spec.loader
sys.modules["sd_t2v"] = module_from_spec(spec)
spec.loader.exec_module(sys.modules["sd_t2v"])

from sd_t2v.tools.children import Child, attend
from sd_t2v.tools.make_venv import (
    NEWEST_PYTHON,
    PYTHON,
    ROOT,
    TORCH,
    VENV,
    Problem,
    dotted,
    free_space,
    prepare,
    say,
)

# Exit codes of a child that Ctrl-C ended without a message.
INTERRUPTED_CODES = (-signal.SIGINT, 0xC000013A)
# Without -P, a file in the person's folder could replace one of our modules.
SAFE_PATH = ("-P",) if sys.version_info >= (3, 11) else ()


class Command(NamedTuple):
    """A command: its purpose, the requirement files that it needs, and the arguments of each Python that it starts."""

    summary: str
    requirements: tuple[str, ...]
    steps: tuple[tuple[str, ...], ...]
    at_root: bool = False


ENGINE = (TORCH, "demo.txt")
LINT = (("-m", "ruff", "check"), ("-m", "ruff", "format", "--check"), ("tools/typecheck.py",))
# Several files in parallel, which is quicker than threads inside operations, in their order: the longest come first.
PYTEST = (("-m", "pytest", "-n", "logical", "--maxprocesses", "4", "--dist", "loadfile", "--no-loadscope-reorder"),)
LAUNCHER = "sd_t2v.t2v_helpers.commands.launcher"


def launch(name: str) -> tuple[tuple[str, ...], ...]:
    """Return the steps of a command that the launcher starts."""
    return (("-m", LAUNCHER, name),)


COMMANDS = {
    "demo": Command("make a video from a prompt with the bundled miniature", ENGINE, launch("demo")),
    "ui": Command("serve the tab as a web page, without a WebUI", (*ENGINE, "ui.txt"), launch("ui")),
    "test": Command("run the tests", (*ENGINE, "ui.txt", "rivals.txt", "test.txt"), PYTEST, at_root=True),
    "lint": Command("check style and types", (*ENGINE, "lint.txt"), LINT, at_root=True),
    "download": Command("list or download known models", ENGINE, launch("download")),
    "doctor": Command("check each model, and say what is wrong with it", ENGINE, launch("doctor")),
    "convert": Command("write a converted copy of a model (half precision, safetensors)", ENGINE, launch("convert")),
    "train": Command("train the miniature again", ENGINE, launch("train")),
    "train-lora": Command("train the miniature's LoRA again", ENGINE, launch("train-lora")),
    "judge": Command("judge the miniature's videos", ENGINE, launch("judge")),
    "bench": Command("compare speed and memory with other implementations", (*ENGINE, "rivals.txt"), launch("bench")),
}

HELP = """usage: python run.py [--own-torch] COMMAND [ARGUMENTS...]

{commands}

COMMAND --help lists a command's own arguments. The first start creates .venv next to run.py and installs what the
command needs; later starts use it again. To start over, delete .venv. To put it elsewhere, set the environment
variable TEXT2VIDEO_VENV to a new or empty folder.

Which torch is used:
  By default the pinned one, for Python 3.10 to {newest}. On Linux it includes CUDA libraries, a download of about 3 GB.
  TORCH_COMMAND   environment variable with the pip arguments that install another torch, as for the WebUI:
                  TORCH_COMMAND="pip install torch torchvision --index-url ..." (pytorch.org shows them for a CPU,
                  CUDA or ROCm). That torch is used until you set another one or delete .venv.
  --own-torch     use torch and all other packages of the Python that runs run.py, for instance the WebUI's. Add this
                  option at every start.
"""


def main(arguments: list[str]) -> int:
    """Run the named command and return its exit code."""
    own_torch = arguments[:1] == ["--own-torch"]
    name, *rest = arguments[own_torch:] or [""]
    if name in {"-h", "--help"}:
        show(help_text(), sys.stdout)
        return 0
    if name not in COMMANDS:
        show(help_text() + (f"\nrun.py: unknown command {name!r}\n" if name else ""), sys.stderr)
        return 2
    return run_guarded(name, rest, own_torch)


def help_text() -> str:
    """Return the help with the table of commands."""
    commands = "\n".join(f"  {name:10} {command.summary}" for name, command in COMMANDS.items())
    return HELP.format(commands=commands, newest=dotted(NEWEST_PYTHON))


def show(text: str, stream: TextIO | None) -> None:
    """Write a text; a stream that cannot be written is not an error."""
    if stream is None:
        return
    try:
        stream.write(text)
        stream.flush()
    except OSError:
        # Python would try to write the rest again when it ends, with an error that nobody can catch.
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def run_guarded(name: str, arguments: list[str], own_torch: bool) -> int:
    """Prepare and start a command. Errors are shown as messages, never as a traceback."""
    try:
        prepare(name, COMMANDS[name].requirements, own_torch)
        return start(COMMANDS[name], arguments)
    except Problem as problem:
        say(str(problem))
    except OSError as error:
        say(f"{error}. Check that you may write in {VENV.parent}, and that there is space ({free_space()}).")
    return 1


def start(command: Command, arguments: list[str]) -> int:
    """Run all steps of a command, and return the first exit code that is not 0. Arguments go to one-step commands."""
    if arguments and len(command.steps) > 1:
        raise Problem("this command takes no arguments.")
    if command.at_root:
        os.chdir(ROOT)
    lines = [[str(PYTHON), *SAFE_PATH, *step, *arguments] for step in command.steps]
    if len(lines) == 1 and os.name != "nt":
        become(lines[0], command.steps[0][1] == LAUNCHER)
    codes = [run_to_end(line) for line in lines]
    return next(filter(None, codes), 0)


def become(line: list[str], launcher: bool) -> None:
    """Replace this process by another program, so that signals and the exit code need not be passed on.

    launcher: whether the program is the launcher, which unblocks signals when it is ready; until then they wait.
    """
    if launcher:
        signal.pthread_sigmask(signal.SIG_BLOCK, ENDINGS)
    try:
        os.execv(line[0], line)
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDINGS)


def run_to_end(line: list[str]) -> int:
    """Run a child to its end and return its exit code. It gets Ctrl-C from the console itself."""
    code, _ = attend(line, pass_on)
    if code in INTERRUPTED_CODES or code == -signal.SIGTERM:
        leave(-code if code < 0 else signal.SIGINT, words="the command did not finish")
    if code == INTERRUPTED:
        # The child has printed a message.
        sys.exit(code)
    return 128 - code if code < 0 else code


def pass_on(child: Child, signals: list[int]) -> None:
    """End the child if this process got SIGTERM, which the console does not send to both."""
    if signal.SIGTERM in signals:
        child.terminate()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
