"""Prints lines for a person; a stream that is closed or full is no error."""

import os
import sys
from contextlib import suppress
from typing import TextIO


def say(text: str) -> None:
    """Print a line. A video is made even where nobody reads it."""
    _write(sys.stdout, text)


def warn(text: str) -> None:
    """Print a line about what went wrong."""
    _write(sys.stderr, text)


def _write(stream: TextIO | None, text: str) -> None:
    # A program without a console has no streams at all.
    if stream is not None:
        with unread():
            stream.write(f"{text}\n")
            stream.flush()


def unread() -> suppress:
    """Go on where a stream is closed, full, or cannot write a character."""
    return suppress(OSError, ValueError)


def green(text: str) -> str:
    """Return the text in green where the console has colours."""
    if sys.stdout is None or not sys.stdout.isatty() or "NO_COLOR" in os.environ:
        return text
    if os.name == "nt":
        # An empty command makes Windows' console understand colour codes.
        os.system("")
    return f"\x1b[32m{text}\x1b[0m"
