"""Builds the HTML of small elements. All values that go into HTML go through here, and are escaped."""

from markupsafe import Markup, escape

from ...modelscope.escape import visible


def fill(template: str, **values: object) -> Markup:
    """Return HTML with values in its {places}; each is escaped unless it is Markup."""
    return Markup(template).format(**values)


def escape_names(text: str) -> Markup:
    """Return one line of text that may contain names from files, escaped, with control characters made visible."""
    return escape(visible(text))


def note(inside: str, *, fresh: bool = False) -> str:
    """Return a line in the tab's small print.

    Args:
        inside: One line of text, or Markup.
        fresh: Whether to mark the line for the page's script.
    """
    content = inside if isinstance(inside, Markup) else escape_names(inside)
    mark = Markup(" data-fresh") if fresh else ""
    return str(fill('<div class="text2video-note" role="status"{mark}>{inside}</div>', mark=mark, inside=content))


def notes(lines: list[str]) -> str:
    """Return several lines in the tab's small print."""
    return "".join(map(note, lines))


def status_line(text: str) -> str:
    """Return a line about the end of a run."""
    return str(fill('<p role="status">{text}</p>', text=text))


def error_line(message: str) -> str:
    """Return an error message, without a report."""
    return str(fill('<div class="error text2video-error" role="alert">{message}</div>', message=message))


def report_fold(text: str) -> str:
    """Return a fold with a report for copying."""
    return str(
        fill(
            "<details><summary>Report to copy</summary><textarea readonly rows='12'>{text}</textarea></details>",
            text=text,
        )
    )
