"""Makes text from files and folders safe to show: it cannot add lines, colours or changes of direction."""

import logging
import re
import traceback
from types import TracebackType
from typing import TypeAlias

# Control characters, line ends, direction marks, invisible characters, and lone surrogates.
_HIDDEN = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ud800-\udfff"
    "\U000e0000-\U000e007f]"
)
_PYTHONS_OWN = ("  ", "\n", "Traceback ")
"""Prefixes of those parts of a traceback that are not an exception's own text."""
ErrorInfo: TypeAlias = tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]


def visible(text: str) -> str:
    """Return the text with every character that a console or a page would obey escaped as in Python, such as \\x1b."""
    return _HIDDEN.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def logger(name: str) -> logging.Logger:
    """Return a module's logger. Its messages are escaped, whichever handler prints them."""
    log = logging.getLogger(name)
    if not any(isinstance(one, _Visible) for one in log.filters):
        log.addFilter(_Visible())
    return log


class _Visible(logging.Filter):
    """A filter that escapes records and drops none. The handlers, which format records, belong to the host."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.msg, record.args = visible(record.getMessage()), ()
        if record.exc_info and not record.exc_text:
            record.exc_text = _escape_traceback(record.exc_info)
        return True


def _escape_traceback(error: ErrorInfo) -> str:
    """Return a traceback in which each exception's text is on one line."""
    parts = (part.removesuffix("\n") for part in traceback.format_exception(*error))
    return "\n".join(
        "\n".join(map(visible, part.split("\n"))) if part.startswith(_PYTHONS_OWN) else visible(part) for part in parts
    )
