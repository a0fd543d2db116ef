"""The part of the benchmark that needs no graphics card: loading, memory and steps, compared with others' networks."""

import platform
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import torch

from . import crowded, layouts, load, step, whole_run
from .cases import CASES
from .table import markdown


class Options(NamedTuple):
    """The command's options.

    Args:
        runs: Number of guided steps per network and process.
        extension: A checkout of the 2023 extension, if it is to take part.
        full_size: Whether to include what needs 12 GB of memory and disk.
    """

    runs: int
    extension: Path | None
    full_size: bool


def measure(options: Options) -> str:
    """Measure, and return the tables as text."""
    report = [_machine()]
    if options.full_size:
        report += _files()
    report.append(markdown("A video of the miniature in 10 steps", crowded.HEADER, crowded.measure()))
    for case in CASES:
        if case.is_full_size and not options.full_size:
            continue
        if table := step.measure(case, options.runs, options.extension):
            report.append(f"{markdown(f'A guided step, {case}', step.HEADER, table.rows)}\n{table.limits}\n")
    return "\n".join(report)


def _files() -> Iterator[str]:
    """Yield the tables of what reads files of full size, which are written for it and then removed."""
    for title, header, measure_them in (
        ("Loading the full-size UNet, half precision on disk", load.HEADER, load.measure),
        ("Loading a whole model of full size", layouts.HEADER, layouts.measure),
        ("A whole run of the full-size model on the CPU", whole_run.HEADER, whole_run.measure),
    ):
        with tempfile.TemporaryDirectory() as folder:
            yield markdown(title, header, measure_them(Path(folder)))


def _machine() -> str:
    return (
        f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}\n"
    )
