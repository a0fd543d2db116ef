"""The command line for models: checks, conversion, downloads."""

import argparse
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...modelscope.errors import ModelError, RequestError, TextToVideoError
from ..disk import expand_home
from ..hosts.console import MODELS
from ..models.known import describe_model
from ..settings import FURTHER_MODELS, OUTPUT_FOLDER
from .launcher import launch

EXIT_CODES = (
    "Exit code: 0 if all is well; 1 if a model has a problem, if files are in a wrong folder and --move was not given, "
    "or if there are leftovers to remove and --clean was not given. Leftovers that should be kept do not count."
)

if TYPE_CHECKING:
    from ..hosts.console import ConsoleHost
    from ..models.folders import ModelFolder


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line, and return the exit code."""
    options = _parser().parse_args(arguments)
    try:
        commands = {"doctor": _doctor, "convert": _convert, "download": _download}
        return commands[options.command](options)
    except TextToVideoError as error:
        sys.stderr.write(f"Error: {error}\n")
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="run.py", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    doctor = commands.add_parser(
        "doctor", help="check each model, and report what was found or what is wrong", epilog=EXIT_CODES
    )
    doctor.add_argument("models", nargs="*", metavar="MODEL", help="names or folders; default: all")
    doctor.add_argument("--thorough", action="store_true", help="read every file to its end and compare checksums")
    doctor.add_argument("--move", action="store_true", help="move files from wrong folders to the right ones")
    doctor.add_argument(
        "--clean", action="store_true", help="remove what interrupted runs, conversions and downloads left behind"
    )
    doctor.add_argument("--output-dir", metavar="DIR", default="", help="folder for videos, if it is not the default")
    convert = commands.add_parser("convert", help="write a copy of a model in half precision, as safetensors")
    convert.add_argument("model", metavar="MODEL", help="its name, folder or file")
    convert.add_argument(
        "--output", type=_path, metavar="DIR", help="new folder; default: text2video/<name>-fp16 in the models folder"
    )
    download = commands.add_parser("download", help="list known models, or download one")
    download.add_argument("name", nargs="?", metavar="NAME", help="a name from the list; without one, all are listed")
    download.add_argument("--yes", action="store_true", help="do not ask for confirmation")
    for command in (doctor, convert, download):
        command.add_argument(
            "--models-dir", type=_folder, default=MODELS, metavar="DIR", help="models folder; default: %(default)s"
        )
        command.add_argument(
            "--lora-dir", type=_path, metavar="DIR", help="folder with LoRA files; default: Lora in the models folder"
        )
        command.add_argument("--further-models", default="", metavar="DIRS", help=FURTHER_MODELS.info)
    return parser


def _folder(name: str) -> Path:
    """Return an existing folder. Raises ArgumentTypeError for others: files in a mistyped one would never be found."""
    if not Path(name).is_dir():
        raise argparse.ArgumentTypeError(f"there is no folder {name!r}")
    return Path(name)


def _path(name: str) -> Path:
    """Return a path with ~ expanded. Raises ArgumentTypeError for the home of an unknown user."""
    try:
        return expand_home(name)
    except RequestError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _host(options: argparse.Namespace) -> "ConsoleHost":
    from ..hosts.console import ConsoleHost

    settings = {FURTHER_MODELS: options.further_models, OUTPUT_FOLDER: getattr(options, "output_dir", "")}
    return ConsoleHost(settings, loras=options.lora_dir, models=options.models_dir)


def _doctor(options: argparse.Namespace) -> int:
    from ..models.doctor import examine
    from ..models.folders import base_folder, find_models

    host = _host(options)
    valid = _move_or_name(options) & _clean_or_name(options, host)
    models = [_model(host, name) for name in options.models] or find_models(host)
    if len(models) == 1 and not options.models:
        _say(
            f"No weights yet: put a model's files into {base_folder(options.models_dir)}, or download them with "
            "`python run.py download`."
        )
    for diagnosis in examine(host, models, verify_files=options.thorough):
        _say("")
        _say(f"{diagnosis.model.name}  {diagnosis.model.path}")
        for finding in diagnosis.findings:
            _say(f"  {'ok   ' if finding.valid else 'WRONG'} {finding.subject}: {finding.text}")
        valid = valid and diagnosis.valid
    return 0 if valid else 1


def _move_or_name(options: argparse.Namespace) -> bool:
    """Move misplaced files, or list them. Return whether none is left."""
    from ..models.misplaced import downloads_folder, find_misplaced, move

    files = find_misplaced(options.models_dir, downloads_folder())
    if options.move:
        return _do(move, files)
    _say_all(f"{path} belongs in {goal}; --move moves it." for path, goal in files)
    return not files


def _clean_or_name(options: argparse.Namespace, host: "ConsoleHost") -> bool:
    """Remove leftovers, or list them. Return whether none is left that could be removed."""
    from ..cleanup.find_leftovers import find_leftovers
    from ..cleanup.leftovers import remove_leftovers

    left = find_leftovers(host)
    if options.clean:
        return _do(remove_leftovers, left)
    _say_all(f"{one} {one.advise('--clean removes it.')}" for one in left)
    return not any(one.is_useless for one in left)


def _do(work: Callable[[Any], list[str]], files: Sequence[Any]) -> bool:
    """Do some work on files, and print what was done. Return whether all of it succeeded; failures are only printed."""
    try:
        _say_all(work(files))
    except ModelError as error:
        _say_all(str(error).splitlines())
        return False
    return True


def _say_all(lines: Iterable[str]) -> None:
    for line in lines:
        _say(line)


def _convert(options: argparse.Namespace) -> int:
    from ..models.convert import convert, default_goal

    model = _model(_host(options), options.model)
    convert(model, options.output or default_goal(model, options.models_dir), _say)
    return 0


def _download(options: argparse.Namespace) -> int:
    from ..models.download import download
    from ..models.known import KNOWN, find_known

    model = find_known(options.name) if options.name else None
    loras = _host(options).lora_folder()
    if model is None:
        sys.stdout.writelines(f"{one.key:20} {describe_model(one, options.models_dir, loras)}\n" for one in KNOWN)
        if options.name:
            sys.stderr.write(f"Error: there is no known model {options.name!r}. The known models are listed above.\n")
        return 2 if options.name else 0
    goal = model.goal(options.models_dir, loras)
    _say(describe_model(model, options.models_dir, loras))
    _say(f"It will be saved to {goal}.")
    if not (options.yes or _agreed()):
        return 1
    for line in download(model, goal, lambda _: None):
        _say(line)
    return 0


def _agreed() -> bool:
    """Ask on the console whether to download, and return the answer."""
    if not sys.stdin.isatty():
        sys.stderr.write("There is no terminal to ask for confirmation. Add --yes to download it.\n")
        return False
    try:
        return input("Download it? [y/N] ").strip().lower() in ("y", "yes")
    except EOFError:
        return False


def _say(line: str) -> None:
    """Print one line, with control characters in it escaped."""
    from ...modelscope.escape import visible

    sys.stdout.write(visible(line) + "\n")


def _model(host: "ConsoleHost", name: str) -> "ModelFolder":
    """Return a model by its name, or else by its path. Raises ModelError, which lists the names."""
    from ..models.folders import ModelFolder, find_model, find_models

    if name in {model.name for model in find_models(host)} or not os.path.exists(name):  # noqa: PTH110 - or no path
        return find_model(host, name)
    return ModelFolder(Path(name).resolve().name, Path(name))


if __name__ == "__main__":
    launch("models", sys.argv[1:])
