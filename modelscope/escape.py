"""Makes text from files and folders fit to be shown: it adds no lines, colours or directions of its own."""

import logging
import re
import traceback
from types import TracebackType
from typing import TypeAlias

# Control characters, line ends, marks of direction, what is invisible, and what is no Unicode.
_HIDDEN = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ud800-\udfff"
    "\U000e0000-\U000e007f]"
)
_PYTHONS_OWN = ("  ", "\n", "Traceback ")
"""The starts of those parts of a traceback that are not an exception's own text."""
ErrorInfo: TypeAlias = tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]


def visible(text: str) -> str:
    """Return the text with all that a console or a page would obey escaped as Python does, such as \\x1b."""
    return _HIDDEN.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def logger(name: str) -> logging.Logger:
    """Return a module's logger. Its messages are escaped, whoever prints them."""
    log = logging.getLogger(name)
    if not any(isinstance(one, _Visible) for one in log.filters):
        log.addFilter(_Visible())
    return log


class _Visible(logging.Filter):
    """Changes records instead of dropping them: the handlers are the host's, and format as they like."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.msg, record.args = visible(record.getMessage()), ()
        if record.exc_info and not record.exc_text:
            record.exc_text = _escape_traceback(record.exc_info)
        return True


def _escape_traceback(error: ErrorInfo) -> str:
    """Return a traceback whose exceptions' texts are one line each."""
    parts = (part.removesuffix("\n") for part in traceback.format_exception(*error))
    return "\n".join(
        "\n".join(map(visible, part.split("\n"))) if part.startswith(_PYTHONS_OWN) else visible(part) for part in parts
    )
