"""The command line: a prompt, and options from the request's own fields, to an MP4."""

import argparse
import dataclasses
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, get_type_hints

if TYPE_CHECKING:
    from ..modelscope.loading import Model

ROOT = Path(__file__).resolve().parent.parent
MINIATURE = ROOT / "miniature" / "model"
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
        _make_video(options)
    except TextToVideoError as error:
        if options.debug:
            raise
        sys.stderr.write(f"Error: {error}\n")
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    from .outputs import DEFAULT_FOLDER

    parser = argparse.ArgumentParser(prog="run.py demo", description="Makes a video from a prompt.")
    parser.add_argument("prompt", nargs="?", default="", help="what the video shows")
    parser.add_argument("--model", type=Path, default=MINIATURE, metavar="DIR", help="folder of the model's files")
    parser.add_argument("--output-dir", type=Path, default=DEFAULT_FOLDER, metavar="DIR", help="default: %(default)s")
    parser.add_argument("--device", help="where to compute: cpu, cuda, mps; default: the best there is")
    parser.add_argument("--debug", action="store_true", help="show where an error came from")
    _add_fields(parser)
    return parser


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
            metavar=types[field.name].__name__.upper(),
            help=f"{field.metadata['label']}{known}",
        )


def _make_video(options: argparse.Namespace) -> None:
    from ..modelscope.config import read_config
    from ..modelscope.pipeline import generate
    from .arguments import GenerationRequest
    from .console import ProgressBar, green
    from .outputs import folder_of_today, reserved_path
    from .video import find_ffmpeg, write_mp4

    request = GenerationRequest.recommended(read_config(options.model).recommended, vars(options))
    find_ffmpeg()
    model = _load(options)
    folder = folder_of_today(options.output_dir)
    progress = ProgressBar()
    try:
        frames = generate(model, request, progress)
    finally:
        progress.close()
    with reserved_path(folder, request.seed, ".mp4") as path:
        write_mp4(path, frames, request.fps)
    sys.stdout.write(f"{green('done')}\nClick here: {path.resolve().as_uri()}\n")


def _load(options: argparse.Namespace) -> "Model":
    import torch

    from ..modelscope.errors import RequestError, first_line
    from ..modelscope.loading import load_model
    from ..modelscope.placement import best_device, best_dtype

    try:
        device = torch.device(options.device) if options.device else best_device()
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise RequestError(f"The device {options.device!r} cannot be used: {first_line(error)}") from error
    return load_model(options.model, device, best_dtype(device))


if __name__ == "__main__":
    sys.exit(main())
