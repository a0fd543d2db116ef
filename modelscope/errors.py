"""Errors that a person can act on: they say what happened, where, and what to do next."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from .escape import visible


class TextToVideoError(Exception):
    """Base of every error that this project raises on purpose; its text is meant for people.

    lines: each is shown as a single line, whatever characters the names in it contain.
    """

    def __init__(self, *lines: str) -> None:
        super().__init__("\n".join(map(visible, lines)))


class RequestError(TextToVideoError, ValueError):
    """A parameter that cannot be used."""


class ModelError(TextToVideoError):
    """A model folder or file that cannot be used."""


class OutOfMemory(TextToVideoError):
    """The device has too little memory."""


@contextmanager
def memory_errors(doing: str, remedy: str) -> Iterator[None]:
    """Turn torch's various errors for a lack of memory into OutOfMemory."""
    try:
        yield
    except (MemoryError, RuntimeError, OSError) as error:
        if not is_memory_error(error):
            raise
        raise OutOfMemory(f"Not enough memory for {doing}. {remedy}") from error


def is_memory_error(error: BaseException) -> bool:
    """Return whether an error means that memory ran out: torch has several such errors, Windows has another."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError | OSError) and any(sign in str(error).lower() for sign in _MEMORY_SIGNS)


_MEMORY_SIGNS = (
    "out of memory", "not enough memory", "can't allocate memory", "cannot allocate memory", "paging file",
    # cuBLAS; DirectML; Metal; Intel.
    "alloc_failed", "not enough gpu video memory", "invalid buffer size", "out of device memory",
    "out_of_device_memory",
)  # fmt: skip


def first_line(error: BaseException) -> str:
    """Return the start of an error's text, for use within a sentence."""
    return next(iter(str(error).splitlines()), type(error).__name__)[:160]


def shorten(names: Sequence[str], shown: int) -> str:
    """Return the first `shown` names, for use within a sentence; long names are cut."""
    return ", ".join(name[:300] for name in names[:shown]) + (", …" if len(names) > shown else "")
