"""Measures a graphics card row by row, and leaves out rows that have been measured on this machine."""

import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from .children import Children
from .results import Machine, Results
from .rows import Row, list_rows

RESULTS = Path(__file__).resolve().parents[2] / "outputs" / "benchmark_card.json"
GIB = 2**30


class Options(NamedTuple):
    """The command's options.

    Args:
        device: cuda, or cpu for a rehearsal.
        small: Whether to use small networks and clips instead of those of full size.
        extension: A checkout of the 2023 extension, if it is to take part.
        results: The JSON file.
    """

    device: str
    small: bool
    extension: Path | None
    results: Path


def main(options: Options) -> int:
    """Measure all rows that are missing, and print the tables."""
    if options.device == "cuda" and not torch.cuda.is_available():
        raise SystemExit(
            "torch finds no CUDA card here. For a trial run without one: bench --card --device cpu --small"
        )
    results = Results(options.results, _machine(options))
    with Children(lambda network: _command(network, options)) as children:
        measure_rows(list_rows(extension=options.extension is not None), children, results)
    sys.stdout.write(f"{results.tables()}\nWritten to {options.results} and {options.results.with_suffix('.md')}\n")
    return 0


def measure_rows(rows: Sequence[Row], children: Children, results: Results) -> None:
    """Measure the missing rows, and write each to the file as soon as it is known."""
    start = time.perf_counter()
    missing = [row for row in rows if not results.has(row)]
    _report(start, f"{len(missing)} rows to measure, {len(rows) - len(missing)} already measured")
    for number, row in enumerate(missing, 1):
        begun = time.perf_counter()
        outcome = children.ask(row)
        results.add(row, outcome, time.perf_counter() - begun)
        _report(start, f"{number}/{len(missing)} {_describe(row)}: {_summary(outcome.get('figures'), outcome)}")


def _describe(row: Row) -> str:
    return ", ".join(filter(None, row[:3]))


def _summary(figures: dict[str, object] | None, outcome: dict[str, object]) -> str:
    if figures is None:
        return f"FAILED: {outcome.get('failure')}"
    plain: Iterable[tuple[str, object]] = (item for item in figures.items() if not isinstance(item[1], list))
    return ", ".join(f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}" for name, value in plain)


def _report(start: float, text: str) -> None:
    sys.stderr.write(f"{time.perf_counter() - start:6.1f} s  {text}\n")
    sys.stderr.flush()


def _command(network: str, options: Options) -> list[str]:
    child = f"{__spec__.name.rpartition('.')[0]}.child"
    size = "small" if options.small else "full"
    return [sys.executable, "-m", child, network, options.device, size, str(options.extension or "")]


def _machine(options: Options) -> Machine:
    size = {"networks": "small networks" if options.small else "networks of full size"}
    version = {"torch": f"torch {torch.__version__}"}
    if options.device == "cpu":
        return {"card": "CPU", "memory": f"{torch.get_num_threads()} threads"} | version | size
    card = torch.cuda.get_device_properties(0)
    return {"card": card.name, "memory": f"{card.total_memory / GIB:.0f} GiB"} | version | size
