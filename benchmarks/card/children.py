"""Processes that measure rows: one per network, which lives as long as it does not crash."""

import contextlib
import json
import queue
import subprocess
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any

from .rows import Row

Outcome = dict[str, Any]
"""{"figures": {name: value}} or {"failure": a sentence}."""
MAX_CRASHES = 3
"""After so many a network's further rows are not tried."""
ROW_SECONDS = 150.0
"""A row that takes longer hangs; the first of a process also makes its network."""


class Crash(Exception):
    """A child ended or hung; the text says how."""


class Child:
    """One process, which answers each line on its stdin with a line on its stdout."""

    def __init__(self, command: Sequence[str]) -> None:
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed by close()
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, text=True, encoding="utf-8"
        )
        self._answers: queue.Queue[str] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        """Pass lines on; an empty one is the end."""
        assert self._process.stdout
        for line in self._process.stdout:
            self._answers.put(line)
        self._answers.put("")

    def ask(self, row: Row, seconds: float = ROW_SECONDS) -> Outcome:
        """Return the child's answer for a row. Raises Crash."""
        assert self._process.stdin
        try:
            self._process.stdin.write(json.dumps(row) + "\n")
            self._process.stdin.flush()
            answer = self._answers.get(timeout=seconds)
        except queue.Empty:
            raise Crash(f"no answer within {seconds:.0f} seconds") from None
        except OSError:
            answer = ""
        if not answer:
            self._process.wait()
            raise Crash(self._last_words())
        outcome: Outcome = json.loads(answer)
        return outcome

    def _last_words(self) -> str:
        self._errors.seek(0)
        lines = [line.strip() for line in self._errors.read().decode(errors="replace").splitlines() if line.strip()]
        return lines[-1][:300] if lines else f"ended with exit code {self._process.returncode}"

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()
        self._reader.join()
        for stream in (self._process.stdin, self._process.stdout, self._errors):
            # A line that the process never read.
            with contextlib.suppress(OSError):
                stream.close()  # type: ignore[union-attr]


class Children:
    """The processes of all networks, started when their first row comes, and again after a crash.

    command: returns the command line of a network's process.
    """

    def __init__(self, command: Callable[[str], Sequence[str]]) -> None:
        self._command = command
        self._running: dict[str, Child] = {}
        self._crashes: Counter[str] = Counter()

    def ask(self, row: Row) -> Outcome:
        """Return what the network's process says of a row; a crash is a failure of the row."""
        name = row.network
        if self._crashes[name] >= MAX_CRASHES:
            return {"failure": f"not tried: the process of {name} crashed {MAX_CRASHES} times"}
        if name not in self._running:
            self._running[name] = Child(self._command(name))
        try:
            return self._running[name].ask(row)
        except Crash as crash:
            self._crashes[name] += 1
            self._running.pop(name).close()
            return {"failure": str(crash)}

    def __enter__(self) -> "Children":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for child in self._running.values():
            child.close()
