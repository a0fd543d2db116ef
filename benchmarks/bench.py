"""Measures load time, memory and speed, and compares them with other implementations: python run.py bench.

Rivals get the same weights. The weights are synthetic, since only sizes matter. Ratios are
meaningful; seconds depend on this machine.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

# Both are imported here, though only one is needed: until `main` begins, a signal ends an import immediately.
from . import processor
from .card import measure

REPORT = Path(__file__).resolve().parent.parent / "outputs" / "benchmark.md"


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print the tables and write them to outputs/."""
    parser = argparse.ArgumentParser(prog="run.py bench", description=__doc__)
    parser.add_argument("--runs", type=_positive, default=3, help="guided steps per network (default: %(default)s)")
    parser.add_argument(
        "--extension", type=Path, metavar="DIR", help="a checkout of the 2023 extension to compare with"
    )
    parser.add_argument("--skip-full-size", action="store_true", help="skip what needs 12 GB of memory and disk space")
    parser.add_argument("--card", action="store_true", help="measure a CUDA card instead of the processor")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="for --card; cpu is for a trial run")
    parser.add_argument("--small", action="store_true", help="for --card: small networks and clips, for a trial run")
    parser.add_argument(
        "--results", type=Path, metavar="FILE", help="for --card: JSON file to collect rows in, and to resume from"
    )
    options = parser.parse_args(arguments)
    return _measure_card(options) if options.card else _measure_processor(options)


def _measure_card(options: argparse.Namespace) -> int:
    results = options.results or measure.RESULTS
    return measure.main(measure.Options(options.device, options.small, options.extension, results))


def _measure_processor(options: argparse.Namespace) -> int:
    text = processor.measure(processor.Options(options.runs, options.extension, not options.skip_full_size))
    REPORT.parent.mkdir(parents=True, exist_ok=True)
    REPORT.write_text(text, encoding="utf-8")
    sys.stdout.write(f"{text}\nWritten to {REPORT}\n")
    return 0


def _positive(text: str) -> int:
    if (number := int(text)) < 1:
        raise argparse.ArgumentTypeError("must be 1 or more")
    return number


if __name__ == "__main__":
    sys.exit(main())
