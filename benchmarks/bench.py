"""Measures load time, memory and speed beside others' networks: python run.py bench.

Rivals get the same weights in the same process; synthetic weights, since only sizes matter. Ratios are worth reading,
seconds are this machine's.
"""

import argparse
import platform
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from . import card, layouts, load, step, whole_run
from .table import markdown

REPORT = Path(__file__).resolve().parent.parent / "outputs" / "benchmark.md"


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print the tables and write them to outputs/benchmark.md."""
    parser = argparse.ArgumentParser(prog="run.py bench", description=__doc__)
    parser.add_argument("--runs", type=_positive, default=5, help="guided steps per network (default: %(default)s)")
    parser.add_argument("--extension", type=Path, metavar="DIR", help="a checkout of the 2023 extension, to take part")
    parser.add_argument("--skip-full-size", action="store_true", help="leave out what needs 12 GB of memory and disk")
    options = parser.parse_args(arguments)
    report = [_machine()]
    if not options.skip_full_size:
        report += _files()
    for name, case in step.CASES.items():
        if not (options.skip_full_size and case.full_size):
            rows = step.measure(name, options.runs, options.extension)
            report.append(markdown(f"A guided step, {name}", step.HEADER, rows))
    if torch.cuda.is_available() and not options.skip_full_size:
        report.append(markdown(f"Guided steps on {torch.cuda.get_device_name()}", card.HEADER, card.measure()))
    text = "\n".join(report)
    REPORT.parent.mkdir(parents=True, exist_ok=True)
    REPORT.write_text(text, encoding="utf-8")
    sys.stdout.write(f"{text}\nWritten to {REPORT}\n")
    return 0


def _files() -> Iterator[str]:
    """Measure what reads files of full size, which are written for it and removed."""
    for title, header, measure in (
        ("Loading the full-size UNet, half precision on disk", load.HEADER, load.measure),
        ("Loading a whole model of full size", layouts.HEADER, layouts.measure),
        ("A whole run of the full-size model on the CPU", whole_run.HEADER, whole_run.measure),
    ):
        with tempfile.TemporaryDirectory() as folder:
            yield markdown(title, header, measure(Path(folder)))


def _positive(text: str) -> int:
    if (number := int(text)) < 1:
        raise argparse.ArgumentTypeError("must be 1 or more")
    return number


def _machine() -> str:
    return (
        f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}\n"
    )


if __name__ == "__main__":
    sys.exit(main())
