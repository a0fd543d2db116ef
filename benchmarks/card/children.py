"""Processes that measure rows: one per network, which runs until it crashes or the benchmark ends."""

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
"""Number of crashes after which a network's remaining rows are not tried."""
ROW_SECONDS = 150.0
"""Seconds after which a row counts as hanging. The first row of a process also creates its network."""


class Crash(Exception):
    """The error for a child that ended or hung; the text says how."""


class Child:
    """A process that answers each line on its stdin with a line on its stdout."""

    def __init__(self, command: Sequence[str]) -> None:
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed by close()
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, text=True, encoding="utf-8"
        )
        self._answers: queue.Queue[str] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        """Pass lines on, and at the end an empty one."""
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
            # Closing fails if the process never read a line.
            with contextlib.suppress(OSError):
                stream.close()  # type: ignore[union-attr]


class Children:
    """The processes of all networks. Each is started at its network's first row, and again after a crash.

    command: returns the command line of a network's process.
    """

    def __init__(self, command: Callable[[str], Sequence[str]]) -> None:
        self._command = command
        self._running: dict[str, Child] = {}
        self._crashes: Counter[str] = Counter()

    def ask(self, row: Row) -> Outcome:
        """Return the answer of the network's process for a row. A crash counts as a failure of the row."""
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
