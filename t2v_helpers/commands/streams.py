"""Standard output and error that never fail: if they are closed, full or read by nobody, they discard the output."""

import io
import os
import sys
from contextlib import suppress
from typing import Any


class _Steady(io.RawIOBase):
    """The raw end of a stream. It keeps the first error, and writes nothing after it."""

    def __init__(self, raw: Any) -> None:
        super().__init__()
        self._raw = raw
        self.error: OSError | None = None

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return int(self._raw.fileno())

    def isatty(self) -> bool:
        return bool(self._raw.isatty())

    def write(self, data: Any) -> int:
        if self.error is None:
            try:
                return int(self._raw.write(data) or 0)
            except OSError as error:
                self.error = error
        return memoryview(data).nbytes


def steady_streams() -> None:
    """Replace Python's streams by such ones. Characters that a console cannot write are escaped with backslashes."""
    _open_closed_descriptors()
    if sys.stdin is None:
        sys.stdin = open(os.devnull, encoding="utf-8")  # noqa: SIM115, PTH123
    sys.stdout, sys.stderr = _steady(sys.stdout), _steady(sys.stderr)


def _open_closed_descriptors() -> None:
    """Open closed standard descriptors, which libraries and child processes would otherwise mistake other files for."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            with suppress(OSError):
                os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)


def _steady(stream: Any) -> Any:
    if stream is None:
        return open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123
    if not isinstance(stream, io.TextIOWrapper):
        return stream
    raw = getattr(stream.buffer, "raw", stream.buffer)
    return io.TextIOWrapper(
        io.BufferedWriter(_Steady(raw)),
        encoding=stream.encoding,
        errors="backslashreplace",
        # A signal ends the process without flushing buffers.
        line_buffering=True,
        write_through=stream.write_through,
    )


def report_lost_output() -> None:
    """Report on standard error if standard output could not be written."""
    sys.stdout.flush()
    raw = getattr(getattr(sys.stdout, "buffer", None), "raw", None)
    if isinstance(raw, _Steady) and raw.error:
        reason = raw.error.strerror or raw.error
        sys.stderr.write(f"Standard output could not be written ({reason}); the rest of the output is lost.\n")
    sys.stderr.flush()
