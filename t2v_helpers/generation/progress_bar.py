"""A run in a console: a progress bar, then a green word."""

import os
import sys
from contextlib import suppress
from typing import TextIO

from tqdm import tqdm

from ...modelscope.progress import Phase, Step

LABELS: dict[Phase, str] = {"encode": "reading the prompt", "sample": "sampling", "decode": "decoding"}


class ProgressBar:
    """Draws each phase as a bar of its own; give it to the pipeline as on_step."""

    def __init__(self) -> None:
        self._bar: tqdm[None] | None = None
        self._phase: Phase | None = None

    def __call__(self, step: Step) -> None:
        if step.phase != self._phase:
            self.close()
            self._phase = step.phase
            with _unread():
                self._bar = tqdm(total=step.total, desc=LABELS[step.phase], unit="step", disable=sys.stderr is None)
        if self._bar is not None:
            with _unread():
                self._bar.update(step.done - self._bar.n)

    def close(self) -> None:
        """Finish the current bar."""
        if self._bar is not None:
            with _unread():
                self._bar.close()
        self._bar, self._phase = None, None


def say(text: str) -> None:
    """Print a line. A video is made even where nobody reads it."""
    _write(sys.stdout, text)


def warn(text: str) -> None:
    """Print a line about what went wrong."""
    _write(sys.stderr, text)


def _write(stream: TextIO | None, text: str) -> None:
    # A program without a console has no streams at all.
    if stream is not None:
        with _unread():
            stream.write(f"{text}\n")
            stream.flush()


def _unread() -> suppress:
    """Go on where a stream is closed, full, or cannot write a character."""
    return suppress(OSError, ValueError)


def green(text: str) -> str:
    """The text in green where the console has colours."""
    if sys.stdout is None or not sys.stdout.isatty() or "NO_COLOR" in os.environ:
        return text
    if os.name == "nt":
        # An empty command makes Windows' console understand colour codes.
        os.system("")
    return f"\x1b[32m{text}\x1b[0m"
