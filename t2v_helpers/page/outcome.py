"""What the page shows of an outcome, as escaped HTML."""

import html
from collections.abc import Iterable
from pathlib import Path

from ...modelscope.errors import TextToVideoError, first_line
from ...modelscope.escape import visible
from ..generation.run import Outcome, Video
from ..host import Host, PageHost
from ..infotext import write_infotext
from ..models.folders import MINIATURE_NAME, base_folder
from ..request import GenerationRequest
from .bug_report import report
from .file_links import link_to

_PLAYERS = (".mp4", ".webm")
_PICTURES = (".gif", ".webp")


def players(videos: Iterable[Video], limit: int) -> str:
    """A looping player and a link per file; `limit` players at most, -1 for all."""
    blocks = []
    for number, video in enumerate(videos):
        show = _player(video.files) if limit < 0 or number < limit else ""
        mark = "" if video.finished else "<p>Interrupted: this video was not finished.</p>"
        blocks.append(f'<div class="text2video-video">{show}{mark}{"".join(map(_link, video.files))}</div>')
    return "".join(blocks)


def _player(files: tuple[Path, ...]) -> str:
    for path in files:
        if path.suffix in _PLAYERS:
            return f'<video controls loop autoplay muted playsinline src="{_url(path)}"></video>'
    for path in files:
        if path.suffix in _PICTURES:
            return f'<img src="{_url(path)}" alt="">'
    frame = _first_frame(files[0])
    return f'<img src="{_url(frame)}" alt="">' if frame else ""


def _first_frame(folder: Path) -> Path | None:
    """None where somebody has moved them meanwhile."""
    try:
        return min(folder.iterdir(), default=None)
    except OSError:
        return None


def _url(path: Path) -> str:
    return html.escape(link_to(path), quote=True)


def _link(path: Path) -> str:
    target = (_first_frame(path) if path.is_dir() else None) or path
    where = f'<a href="{_url(target)}" target="_blank">Click here</a>'
    return f'<p class="text2video-link">{where} <span>{escaped(str(path))}</span></p>'


def infotexts(videos: Iterable[Video]) -> str:
    """The settings of each video."""
    return "".join(f'<p class="text2video-infotext">{html.escape(video.infotext)}</p>' for video in videos)


def summary(host: Host, outcome: Outcome, model: str, request: GenerationRequest) -> str:
    """One line on how it ended, and what went wrong with its remedy."""
    parts = []
    if outcome.error:
        parts.append(error_box(host, outcome.error, write_infotext(request, model)))
    parts += map(error_line, outcome.problems)
    made = len(outcome.videos)
    words = [f"{made} video{'s' * (made != 1)} saved"] if made or not outcome.error else []
    words += [f"{outcome.skipped} skipped"] if outcome.skipped else []
    words += ["interrupted"] if outcome.interrupted else []
    parts += [note(escaped(words)) for words in outcome.notes]
    return "".join(parts) + f'<p role="status">{html.escape(", ".join(words))}</p>'


def escaped(text: str) -> str:
    """Text for HTML, whatever the names in it hold."""
    return html.escape(visible(text))


def error_line(message: str) -> str:
    """An error without a report."""
    return f'<div class="error text2video-error" role="alert">{html.escape(message)}</div>'


def error_box(host: Host, error: Exception, settings: str = "") -> str:
    """An error in its own words, with a report to copy under a fold."""
    message = str(error) if isinstance(error, TextToVideoError) else _unexpected(error)
    text = html.escape(f"{message}\n\n{report(host)}\n\n{settings}".strip())
    return (
        f"{error_line(message)}"
        f"<details><summary>Report to copy</summary><textarea readonly rows='12'>{text}</textarea></details>"
    )


def _unexpected(error: Exception) -> str:
    return (
        f"Something went wrong that should not have: {type(error).__name__}: {visible(first_line(error))}. Nothing "
        "that was saved is lost. The console shows where it happened; please report it together with the text below."
    )


def model_note(host: PageHost, names: list[str], *, fresh: bool = False) -> str:
    """Which model this is about, and where its files belong where there are none."""
    words = html.escape(host.remark)
    if names == [MINIATURE_NAME]:
        folder = escaped(str(base_folder(host.models_folder())))
        words = (
            "<b>There are no ModelScope weights yet.</b> This is a bundled miniature model for trying the "
            "tab: it knows red, green, blue and yellow balls, squares and triangles moving left, right, up and down. "
            "For real videos open <b>Models</b> below and press Download, or put the weights into "
            f"<code>{folder}</code> and press the refresh button. "
        ) + words
    return note(words, fresh=fresh)


def note(inside: str, *, fresh: bool = False) -> str:
    """HTML in the small print of the tab. fresh: marked for the script."""
    return f'<div class="text2video-note" role="status"{" data-fresh" * fresh}>{inside}</div>'
