"""Prints lines for a person; a closed or full stream is not an error."""

import os
import sys
from contextlib import suppress
from typing import TextIO


def say(text: str) -> None:
    """Print a line. If it cannot be written, the run goes on."""
    _write(sys.stdout, text)


def warn(text: str) -> None:
    """Print a line about a problem to standard error."""
    _write(sys.stderr, text)


def _write(stream: TextIO | None, text: str) -> None:
    # A program without a console has no streams at all.
    if stream is not None:
        with unread():
            stream.write(f"{text}\n")
            stream.flush()


def unread() -> suppress:
    """Return a context that ignores errors of a stream that is closed, full, or cannot write a character."""
    return suppress(OSError, ValueError)


def green(text: str) -> str:
    """Return the text in green if the console has colours."""
    if sys.stdout is None or not sys.stdout.isatty() or "NO_COLOR" in os.environ:
        return text
    if os.name == "nt":
        # An empty command makes Windows' console understand colour codes.
        os.system("")
    return f"\x1b[32m{text}\x1b[0m"
