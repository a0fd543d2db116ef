"""The command line: a prompt, and options from the request's own fields, to an MP4."""

import argparse
import dataclasses
import logging
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import get_type_hints

from .model_folders import MINIATURE_NAME
from .settings import BUDGET, EIGHT_BITS, OUTPUT_FOLDER, PLAN

METAVARS = {str: "TEXT", int: "NUMBER", float: "NUMBER", tuple[str, ...]: "NAMES"}
INTERRUPTED = 130
"""What shells expect of a program that Ctrl-C ended."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    try:
        return _run(arguments)
    except KeyboardInterrupt:
        sys.stderr.write("\nInterrupted; no file was left behind.\n")
        return INTERRUPTED


def _run(arguments: Sequence[str] | None) -> int:
    # Imported here, so that Ctrl-C during torch's slow import is handled too.
    from ..modelscope.errors import TextToVideoError

    options = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.DEBUG if options.debug else logging.WARNING, format="%(levelname)s: %(message)s")
    try:
        _make_videos(options)
    except TextToVideoError as error:
        if options.debug:
            raise
        sys.stderr.write(f"Error: {error}\n")
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    from ..miniature.recipe import MODEL_FOLDER
    from .outputs import DEFAULT_FOLDER

    parser = argparse.ArgumentParser(prog="run.py demo", description="Makes a video from a prompt.")
    parser.add_argument("prompt", nargs="?", default="", help="what the video shows")
    parser.add_argument("--model", type=Path, default=MODEL_FOLDER, metavar="DIR", help="folder of the model's files")
    parser.add_argument("--output-dir", type=Path, default=DEFAULT_FOLDER, metavar="DIR", help="default: %(default)s")
    parser.add_argument(
        "--lora-dir", type=Path, metavar="DIR", help="where <lora:name:weight> is; default: models/Lora"
    )
    parser.add_argument("--device", help="where to compute: cpu, cuda, mps; default: the best there is")
    parser.add_argument("--plan", default=PLAN.default, choices=PLAN.choices, help=f"{PLAN.label}: {PLAN.info}")
    parser.add_argument("--memory", type=_gigabytes, default=0.0, metavar="GB", help=BUDGET.label)
    parser.add_argument("--eight-bits", action="store_true", help=f"{EIGHT_BITS.label}: {EIGHT_BITS.info}")
    parser.add_argument("--debug", action="store_true", help="show where an error came from")
    _add_fields(parser)
    return parser


def _gigabytes(text: str) -> float:
    if not 0 < (number := float(text)) < math.inf:
        raise argparse.ArgumentTypeError("must be more than 0")
    return number


def _add_fields(parser: argparse.ArgumentParser) -> None:
    """One option per field of the request; left out, the model's recommendation or the field's default holds."""
    from .arguments import GenerationRequest

    types = get_type_hints(GenerationRequest)
    for field in dataclasses.fields(GenerationRequest):
        if field.name == "prompt":
            continue
        choices = field.metadata["choices"]
        known = f" ({', '.join(choices())})" if choices else ""
        parser.add_argument(
            "--" + field.name.replace("_", "-"),
            default=argparse.SUPPRESS,
            metavar=METAVARS[types[field.name]],
            help=": ".join(filter(None, (f"{field.metadata['label']}{known}", field.metadata["info"]))),
        )


def _make_videos(options: argparse.Namespace) -> None:
    """Print a link per video, then raise what ended the run early, if anything did."""
    from ..miniature.recipe import MODEL_FOLDER
    from .arguments import GenerationRequest
    from .generate import run
    from .host.console import ConsoleHost
    from .known_models import good_values
    from .model_folders import ModelFolder

    request = GenerationRequest.recommended(good_values(options.model), vars(options))
    settings = {OUTPUT_FOLDER: str(options.output_dir), PLAN: options.plan, BUDGET: options.memory}
    settings[EIGHT_BITS] = options.eight_bits
    host = ConsoleHost(settings, options.device, options.lora_dir)
    name = MINIATURE_NAME if options.model == MODEL_FOLDER else options.model.resolve().name
    outcome = run(host, ModelFolder(name, options.model), request)
    for video in outcome.videos:
        sys.stdout.writelines(f"Click here: {path.resolve().as_uri()}\n" for path in video.files)
    for problem in outcome.problems:
        sys.stderr.write(f"Error: {problem}\n")
    if outcome.error:
        raise outcome.error


if __name__ == "__main__":
    sys.exit(main())
