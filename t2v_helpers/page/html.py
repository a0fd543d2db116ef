"""The HTML of the page's small parts. Whatever goes into HTML goes through here, and is escaped."""

from markupsafe import Markup, escape

from ...modelscope.escape import visible


def fill(template: str, **values: object) -> Markup:
    """Return HTML with values in its {places}, each escaped unless it is Markup already."""
    return Markup(template).format(**values)


def escape_names(text: str) -> Markup:
    """Return text of one line with names of strangers' files in it, escaped; what a page would obey is shown."""
    return escape(visible(text))


def note(inside: str, *, fresh: bool = False) -> str:
    """Return a line in the small print of the tab.

    Args:
        inside: Text of one line, or Markup.
        fresh: Whether to mark it for the page's script.
    """
    content = inside if isinstance(inside, Markup) else escape_names(inside)
    mark = Markup(" data-fresh") if fresh else ""
    return str(fill('<div class="text2video-note" role="status"{mark}>{inside}</div>', mark=mark, inside=content))


def notes(lines: list[str]) -> str:
    """Return lines in the small print of the tab, one below the other."""
    return "".join(map(note, lines))


def status_line(text: str) -> str:
    """Return a line on how a run ended."""
    return str(fill('<p role="status">{text}</p>', text=text))


def error_line(message: str) -> str:
    """Return an error without a report."""
    return str(fill('<div class="error text2video-error" role="alert">{message}</div>', message=message))


def report_fold(text: str) -> str:
    """Return a fold with a report to copy."""
    return str(
        fill(
            "<details><summary>Report to copy</summary><textarea readonly rows='12'>{text}</textarea></details>",
            text=text,
        )
    )
