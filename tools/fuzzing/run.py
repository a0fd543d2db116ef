"""Damages files for some minutes, and prints for each reader what happened."""

import argparse
import sys
import time
from collections import Counter
from pathlib import Path
from random import Random

from .seeds import Seed, seeds
from .supervisor import GOOD, Supervisor, Verdict

OUTCOMES = ("accepted", "refused", "traceback", "code", "hang", "crash", "memory")
HEADER = ("reader", "files tried", "accepted", "refused", "traceback", "code run", "hang", "crash", "memory")


def main() -> int:
    """Run the command line, and return 1 if anything happened but acceptance or a refusal with a message."""
    options = _parse()
    found: Counter[tuple[str, str]] = Counter()
    begun, number = time.monotonic(), 0
    chosen = [seed for seed in seeds() if options.reader in (None, seed.reader)]
    with Supervisor() as supervisor:
        while time.monotonic() - begun < 60 * options.minutes and number < (options.mutants or number + 1):
            seed = chosen[number % len(chosen)]
            data = seed.mutant(Random(f"{options.seed} {number}"))
            verdict = supervisor.judge(seed.reader, seed.place, data)
            found[seed.reader, verdict.outcome] += 1
            if verdict.outcome not in GOOD:
                _keep(options.keep, number, seed, data, verdict)
            number += 1
    print(table(found))
    return int(any(outcome not in GOOD for _, outcome in found))


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="fuzz.py", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0, help="default: %(default)s")
    parser.add_argument("--mutants", type=int, help="stop after this many files")
    parser.add_argument(
        "--seed", type=int, default=0, help="the same number produces the same files; default: %(default)s"
    )
    parser.add_argument("--reader", help="one reader only, by its name in the table")
    parser.add_argument(
        "--keep", type=Path, default=Path("fuzz-failures"), metavar="DIR", help="folder for files that failed"
    )
    return parser.parse_args()


def _keep(folder: Path, number: int, seed: Seed, data: bytes, verdict: Verdict) -> None:
    """Save a file that was not read as it should be, and print where it is."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{number}-{verdict.outcome}-{Path(seed.place).name}"
    path.write_bytes(data)
    print(f"{path} ({seed.reader}): {verdict.outcome}\n{verdict.words}", file=sys.stderr)


def table(found: Counter[tuple[str, str]]) -> str:
    """Return a Markdown table with the numbers of outcomes. found: the numbers by reader and outcome."""
    rows = [HEADER, ("---",) * len(HEADER)]
    for reader in (*dict.fromkeys(reader for reader, _ in found), "all"):
        counts = [
            sum(n for (who, what), n in found.items() if what == one and reader in (who, "all")) for one in OUTCOMES
        ]
        rows.append((reader, str(sum(counts)), *map(str, counts)))
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


if __name__ == "__main__":
    sys.exit(main())
