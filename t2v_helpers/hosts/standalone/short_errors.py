"""Logs one line for an invalid request, for which gradio and uvicorn would print a traceback."""

import importlib
import logging
import sys
import traceback
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from ....modelscope.errors import TextToVideoError, first_line
from ....modelscope.escape import logger, visible

log = logger(__name__)
HERE = Path(__file__).resolve()
PASSING = {HERE.with_name(name) for name in ("gate.py", "response_headers.py")}
"""Files of this project's that every request passes through."""


def is_foreseen(error: BaseException) -> bool:
    """Return whether an error was raised on purpose, or before a request reached any code of this project's."""
    if isinstance(error.__cause__ or error, TextToVideoError):
        return True
    files = {Path(frame.filename).resolve() for frame in traceback.extract_tb(error.__traceback__)}
    return not any(file.is_relative_to(HERE.parents[2]) for file in files - PASSING)


def shorten_errors() -> None:
    """Make gradio and uvicorn log one line for a foreseen error. Other errors keep their traceback."""
    for name in ("routes", "queueing"):
        importlib.import_module(f"gradio.{name}").traceback = SimpleNamespace(print_exc=_print)  # type: ignore[attr-defined]
    logging.getLogger("uvicorn.error").addFilter(_shorten)


def _print(*_: Any, **__: Any) -> None:
    error = sys.exc_info()[1]
    if error is not None and is_foreseen(error):
        log.warning("A request was not answered: %s", _describe(error))
    else:
        log.error("An event on the page failed", exc_info=error)


def _shorten(record: logging.LogRecord) -> bool:
    error = record.exc_info[1] if isinstance(record.exc_info, tuple) else None
    if error is not None and is_foreseen(error):
        record.msg, record.args, record.exc_info = f"A request was not answered: {_describe(error)}", (), None
    return True


def _describe(error: BaseException) -> str:
    return visible(f"{type(error).__name__}: {first_line(error)}")
