"""Stores measured rows as JSON, row by row, and shows them as tables."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from ..table import markdown
from .children import Outcome
from .rows import EIGHT_BITS, KERNELS, LIMITS, OURS, PARTS, RUN, STEP, WITHIN, Row

Machine = dict[str, str]
Entry = dict[str, Any]
"""A row's fields, its machine, the seconds that measuring took, and its outcome."""
OUT_OF_MEMORY = "out of memory"
COLUMNS: dict[str, dict[str, str]] = {
    LIMITS: {"TFLOP/s": ".1f", "GB/s": ".1f"},
    STEP: {
        "seconds a step": ".4f",
        "times as long as ours, quickest": ".2f",
        "GiB reserved": ".2f",
        "GiB allocated": ".2f",
        "TFLOP": ".3f",
        "TFLOP/s": ".1f",
        "steps": "d",
    },
    RUN: {
        "seconds": ".2f",
        "encode": ".2f",
        "sample": ".2f",
        "seconds a step": ".4f",
        "decode": ".2f",
        "GiB reserved": ".2f",
    },
    WITHIN: {"limit, GiB": ".2f", "within": "s", "GiB reserved": ".2f"},
    KERNELS: {
        "ms a step": ".2f",
        "ms of the card a step": ".2f",
        "share of time busy": ".2f",
        "launches a step": ".0f",
    },
}
"""The figures of each part of the benchmark, and their formats."""
KERNEL_HEADER = ("kernel", "ms a step", "calls a step")


class Results:
    """The rows in a file. Rows of other machines are kept unchanged.

    Args:
        path: The JSON file; the tables are written next to it.
        machine: The machine on which rows are measured now.
    """

    def __init__(self, path: Path, machine: Machine) -> None:
        self.path, self._machine = path, machine
        self._entries: list[Entry] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []

    def has(self, row: Row) -> bool:
        """Return whether a row has been measured on this machine. Failures count only if memory ran out."""
        entry = self._find(row)
        return entry is not None and ("figures" in entry or entry["failure"] == OUT_OF_MEMORY)

    def _find(self, row: Row) -> Entry | None:
        return next((entry for entry in self._mine() if _key(entry) == row), None)

    def _mine(self) -> Iterator[Entry]:
        return (entry for entry in self._entries if entry["machine"] == self._machine)

    def add(self, row: Row, outcome: Outcome, seconds: float) -> None:
        """Write a row into the file, and into the tables next to it."""
        old, entry = self._find(row), row._asdict() | {"machine": self._machine, "took": round(seconds, 2)} | outcome
        self._entries = [*(one for one in self._entries if one is not old), entry]
        self.path.parent.mkdir(parents=True, exist_ok=True)
        _replace(self.path, json.dumps(self._entries, indent=1))
        _replace(self.path.with_suffix(".md"), self.tables())

    def tables(self) -> str:
        """Return this machine's rows as Markdown."""
        mine = list(self._mine())
        parts = [(part, [entry for entry in mine if entry["part"] == part]) for part in PARTS]
        found = [_table(part, entries) for part, entries in parts if entries]
        kernels = [_kernel_table(entry) for entry in mine if "kernels" in entry.get("figures", {})]
        return "\n".join([", ".join(self._machine.values()) + "\n", *found, *kernels])


def _key(entry: Entry) -> Row:
    return Row(*(entry[name] for name in Row._fields))


def _replace(path: Path, text: str) -> None:
    """Write a file so that an interruption leaves either the old one or the new one."""
    half = path.with_name(path.name + ".half")
    half.write_text(text, encoding="utf-8")
    half.replace(path)


def _table(part: str, entries: list[Entry]) -> str:
    columns = COLUMNS[part]
    rows = [[entry["case"], entry["way"], *_cells(entry, entries, columns)] for entry in entries]
    return markdown(part.capitalize(), ("frames and size", "way", *columns, "failure"), rows)


def _cells(entry: Entry, entries: Iterable[Entry], columns: dict[str, str]) -> Iterator[str]:
    figures = dict(entry.get("figures", {}))
    mine = _quickest(entry["case"], entries)
    if mine and "seconds a step" in figures:
        figures["times as long as ours, quickest"] = figures["seconds a step"] / mine
    for name, form in columns.items():
        yield format(figures[name], form) if figures.get(name) is not None else ""
    yield _escape(entry.get("failure", ""))


def _quickest(case: str, entries: Iterable[Entry]) -> float | None:
    """Return the seconds per step of our quickest plan for a case, if any has been measured."""
    ours = (entry for entry in entries if entry["network"] == OURS and entry["case"] == case)
    seconds = (entry.get("figures", {}).get("seconds a step") for entry in ours if entry["way"] != EIGHT_BITS)
    return min(filter(None, seconds), default=None)


def _kernel_table(entry: Entry) -> str:
    rows = [[_escape(name), f"{ms:.3f}", f"{calls:.0f}"] for name, ms, calls in entry["figures"]["kernels"]]
    return markdown(f"The longest kernels, {entry['case']}, {entry['way']}", KERNEL_HEADER, rows)


def _escape(text: str) -> str:
    return text.replace("|", "\\|")
