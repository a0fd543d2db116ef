"""The command line that makes a video from a prompt, with an option for each field of the request."""

import argparse
import dataclasses
import logging
import math
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import get_type_hints

from ..signals import set_last_line
from .launcher import launch

METAVARS = {str: "TEXT", int: "NUMBER", float: "NUMBER", tuple[str, ...]: "NAMES"}
REPEATED = "--image"
EXIT_CODES = """Exit code: 0 if everything that you asked for was made, even if its output could not be printed; 1 if
anything is missing, for instance one of several formats (the reason is printed); 2 for an invalid option; 130 after
Ctrl-C; 143 after SIGTERM."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line, and return the exit code. Started by `launcher.py`, since importing torch takes seconds."""
    from ...modelscope.errors import TextToVideoError
    from ..terminal import warn

    options = _parser().parse_args(list(_join_values(sys.argv[1:] if arguments is None else arguments)))
    logging.basicConfig(level=logging.DEBUG if options.debug else logging.WARNING, format="%(levelname)s: %(message)s")
    try:
        return _make_videos(options)
    except TextToVideoError as error:
        if options.debug:
            raise
        warn(f"Error: {error}")
        return 1


def _join_values(arguments: Iterable[str]) -> Iterator[str]:
    """Yield the arguments; `--image -1=FILE` becomes one, since argparse would take the -1 for an option."""
    rest = iter(arguments)
    for argument in rest:
        yield f"{argument}={next(rest, '')}" if argument == REPEATED else argument


def _parser() -> argparse.ArgumentParser:
    from ...miniature.recipe import MODEL_FOLDER
    from ..generation.outputs import DEFAULT_FOLDER
    from ..settings import BUDGET, EIGHT_BITS, PLAN

    parser = argparse.ArgumentParser(prog="run.py demo", description="Makes a video from a prompt.", epilog=EXIT_CODES)
    parser.add_argument("prompt", nargs="?", default="", help="what the video should show")
    parser.add_argument("--model", type=Path, default=MODEL_FOLDER, metavar="DIR", help="folder with the model's files")
    parser.add_argument(
        "--output-dir", type=Path, default=DEFAULT_FOLDER, metavar="DIR", help="folder for videos; default: %(default)s"
    )
    parser.add_argument("--lora-dir", type=Path, metavar="DIR", help="folder with LoRA files; default: models/Lora")
    parser.add_argument("--device", help="device to compute on: cpu, cuda or mps; default: the best available")
    parser.add_argument("--plan", default=PLAN.default, choices=PLAN.choices, help=f"{PLAN.label}: {PLAN.info}")
    parser.add_argument("--memory", type=_gigabytes, default=0.0, metavar="GB", help=BUDGET.label)
    parser.add_argument("--eight-bits", action="store_true", help=f"{EIGHT_BITS.label}: {EIGHT_BITS.info}")
    parser.add_argument("--debug", action="store_true", help="show the full traceback of an error")
    _add_fields(parser)
    return parser


def _gigabytes(text: str) -> float:
    if not 0 < (number := float(text)) < math.inf:
        raise argparse.ArgumentTypeError("must be more than 0")
    return number


def _add_fields(parser: argparse.ArgumentParser) -> None:
    """Add an option for each field of the request. Its default is the model's recommendation, or else the field's."""
    from ..request import GenerationRequest

    types = get_type_hints(GenerationRequest)
    for field in dataclasses.fields(GenerationRequest):
        if field.name == "prompt":
            continue
        choices = field.metadata["choices"]
        repeats = types[field.name] == tuple[str, ...] and not choices
        known = f" ({', '.join(choices())})" if choices else ""
        parser.add_argument(
            "--" + field.name.replace("_", "-"),
            default=argparse.SUPPRESS,
            metavar="FRAME=FILE" if repeats else METAVARS[types[field.name]],
            action="append" if repeats else "store",
            help=": ".join(filter(None, (f"{field.metadata['label']}{known}", field.metadata["info"]))),
        )


def _make_videos(options: argparse.Namespace) -> int:
    """Make the videos and print links to their files, then raise the error that ended the run early, if one did."""
    from ...miniature.recipe import MODEL_FOLDER
    from ..generation.run import run
    from ..hosts.console import ConsoleHost
    from ..models.folders import MINIATURE_NAME, ModelFolder
    from ..models.known import good_values
    from ..request import GenerationRequest
    from ..settings import BUDGET, EIGHT_BITS, OUTPUT_FOLDER, PLAN
    from ..terminal import say, warn

    request = GenerationRequest.recommended(good_values(options.model), vars(options))
    settings = {OUTPUT_FOLDER: str(options.output_dir), PLAN: options.plan, BUDGET: options.memory}
    settings[EIGHT_BITS] = options.eight_bits
    host = ConsoleHost(settings, options.device, options.lora_dir)
    name = MINIATURE_NAME if options.model == MODEL_FOLDER else options.model.resolve().name
    path = Path(request.hires)
    second = ModelFolder(path.resolve().name, path) if path.is_dir() else None
    if second:
        request = dataclasses.replace(request, hires=second.name)
    outcome = run(host, ModelFolder(name, options.model), request, _Finished().add, second)
    for video in outcome.videos:
        for path in video.files:
            say(f"Click here: {path.resolve().as_uri()}")
    for problem in outcome.problems:
        warn(f"Error: {problem}")
    if outcome.error:
        raise outcome.error
    return 1 if outcome.problems else 0


class _Finished:
    """A count of a run's finished files, for the last line of the command if it is interrupted."""

    def __init__(self) -> None:
        self._count = 0

    def add(self, path: Path) -> None:
        self._count += 1
        files = "1 finished file was kept" if self._count == 1 else f"{self._count} finished files were kept"
        set_last_line(f"Interrupted; {files} in {path.parent}, and nothing else was left behind.")


if __name__ == "__main__":
    launch("demo", sys.argv[1:])
