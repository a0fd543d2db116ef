"""Keeps a subject running: gives it files, waits for a limited time, and starts another one if it dies."""

import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

from .seeds import lay_out

ROOT = Path(__file__).resolve().parents[2]
LONGEST = 10.0
"""Maximum number of seconds for one file."""
TIMES, MORE = 4, 200_000_000
"""Limit of the memory that reading may take: TIMES times the file's size, plus MORE bytes."""
GOOD = ("accepted", "refused")


class Verdict(NamedTuple):
    """The result for a file. outcome: accepted or refused; else traceback, code, hang, crash or memory."""

    outcome: str
    words: str = ""
    seconds: float = 0.0
    memory: int = 0


class Supervisor:
    """The owner of a subject, and of a temporary folder for its files. Use it as a context manager.

    module: the subject's module; longest: maximum number of seconds for one file.
    """

    def __init__(self, module: str = "sd_t2v.tools.fuzzing.worker", longest: float = LONGEST) -> None:
        self._module, self._longest = module, longest
        self._folder = tempfile.TemporaryDirectory()
        self.folder = Path(self._folder.name)
        self._subject: subprocess.Popen[str] | None = None
        self._answers: queue.Queue[str] = queue.Queue()

    def __enter__(self) -> "Supervisor":
        lay_out(self.folder)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self._end()
        self._folder.cleanup()

    def judge(self, reader: str, place: str, data: bytes) -> Verdict:
        """Let the subject read these bytes as a file at a path in the folder, and return the verdict."""
        path = self.folder / place
        # The old file is not overwritten: it may still be mapped.
        path.unlink(missing_ok=True)
        path.write_bytes(data)
        subject = self._subject or self._begin()
        assert subject.stdin
        try:
            subject.stdin.write(f"{reader}\t{path}\n")
            subject.stdin.flush()
            verdict = Verdict(**json.loads(self._answers.get(timeout=self._longest)))
        except queue.Empty:
            self._end()
            return Verdict("hang", seconds=self._longest)
        except (OSError, ValueError):
            code = subject.wait()
            self._end()
            return Verdict("crash", f"exit code {code}")
        finally:
            path.unlink()
        too_much = verdict.outcome in GOOD and verdict.memory > TIMES * len(data) + MORE
        return verdict._replace(outcome="memory") if too_much else verdict

    def _begin(self) -> "subprocess.Popen[str]":
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "FUZZ_SECRET": "hunter2-secret", "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-m", self._module]
        subject = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment, cwd=self.folder
        )
        self._subject, self._answers = subject, queue.Queue()
        threading.Thread(target=_listen, args=(subject, self._answers), daemon=True).start()
        if self._answers.get(timeout=120) != "ready\n":
            raise RuntimeError("the subject does not start")
        return subject

    def _end(self) -> None:
        subject, self._subject = self._subject, None
        if subject:
            subject.kill()
            subject.wait()
            for stream in (subject.stdin, subject.stdout):
                if stream:
                    stream.close()


def _listen(subject: "subprocess.Popen[str]", answers: "queue.Queue[str]") -> None:
    """Pass answers on, and at the end an empty one."""
    assert subject.stdout
    for line in subject.stdout:
        answers.put(line)
    answers.put("")
