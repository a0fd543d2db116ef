"""The HTML of an outcome: players and links, settings, and errors."""

from collections.abc import Iterable
from pathlib import Path

from markupsafe import Markup

from ...modelscope.errors import RequestError, TextToVideoError, first_line
from ...modelscope.escape import visible
from ...modelscope.units import format_count
from ..generation.outcome import Outcome, Video
from ..host import Host, PageHost
from ..infotext import write_infotext
from ..models.folders import MINIATURE_NAME, base_folder
from ..request import GenerationRequest
from ..video.formats import MEDIA_TYPES
from .bug_report import report
from .file_links import link_to
from .html import error_line, escape_names, fill, note, report_fold, status_line


def players(videos: Iterable[Video], limit: int) -> str:
    """Return a looping player per video and a link per file. limit: maximum number of players, -1 for all."""
    blocks = (_block(video, plays=limit < 0 or number < limit) for number, video in enumerate(videos))
    return "".join(blocks)


def _block(video: Video, *, plays: bool) -> Markup:
    mark = Markup("") if video.finished else Markup("<p>Interrupted: this video was not finished.</p>")
    return fill(
        '<div class="text2video-video">{player}{mark}{links}</div>',
        player=_player(video.files) if plays else "",
        mark=mark,
        links=Markup("").join(map(_link, video.files)),
    )


def _player(files: tuple[Path, ...]) -> Markup:
    for path in files:
        if MEDIA_TYPES.get(path.suffix, "").startswith("video/"):
            return fill('<video controls loop autoplay muted playsinline src="{url}"></video>', url=link_to(path))
    for path in files:
        if path.suffix in MEDIA_TYPES:
            return _picture(path)
    frame = _first_frame(files[0])
    return _picture(frame) if frame else Markup("")


def _picture(path: Path) -> Markup:
    return fill('<img src="{url}" alt="">', url=link_to(path))


def _first_frame(folder: Path) -> Path | None:
    """Return the first of a folder's frames, or None if somebody has moved them meanwhile."""
    try:
        return min(folder.iterdir(), default=None)
    except OSError:
        return None


def _link(path: Path) -> Markup:
    target = (_first_frame(path) if path.is_dir() else None) or path
    return fill(
        '<p class="text2video-link"><a href="{url}" target="_blank">Click here</a> <span>{path}</span></p>',
        url=link_to(target),
        path=escape_names(str(path)),
    )


def infotexts(videos: Iterable[Video]) -> str:
    """Return the settings of each video."""
    return "".join(fill('<p class="text2video-infotext">{text}</p>', text=video.infotext) for video in videos)


def summary(host: Host, outcome: Outcome, model: str, request: GenerationRequest) -> str:
    """Return a line about the end of a run, below its errors and notes."""
    parts = []
    if outcome.error:
        parts.append(error_box(host, outcome.error, write_infotext(request, model)))
    parts += map(error_line, outcome.problems)
    parts += map(note, outcome.notes)
    made = len(outcome.videos)
    counts = [f"{format_count(made, 'video')} saved"] if made or not outcome.error else []
    counts += [f"{outcome.skipped} skipped"] if outcome.skipped else []
    counts += ["interrupted"] if outcome.interrupted else []
    return "".join(parts) + status_line(", ".join(counts))


def error_box(host: Host, error: Exception, settings: str = "") -> str:
    """Return an error message, and a fold with a report for copying, unless it is about the request."""
    message = str(error) if isinstance(error, TextToVideoError) else _unexpected(error)
    if isinstance(error, RequestError):
        return error_line(message)
    return error_line(message) + report_fold(f"{message}\n\n{report(host)}\n\n{settings}".strip())


def _unexpected(error: Exception) -> str:
    return (
        f"Something unexpected went wrong: {type(error).__name__}: {visible(first_line(error))}. Nothing "
        "that was saved has been lost. The console shows where it happened; please report that together with the text "
        "below."
    )


_NO_WEIGHTS = (
    "<b>There are no ModelScope weights yet.</b> This is a bundled miniature model for trying the tab: it knows red, "
    "green, blue and yellow balls, squares and triangles moving left, right, up and down. For real videos open "
    "<b>Models</b> below and press Download, or put the weights into <code>{folder}</code> and press the refresh "
    "button. {remark}"
)


def model_note(host: PageHost, names: list[str], *, fresh: bool = False) -> str:
    """Return the note below the list of models: the host's remark; without models, also where their files belong."""
    if names != [MINIATURE_NAME]:
        return note(host.remark, fresh=fresh)
    folder = escape_names(str(base_folder(host.models_folder())))
    return note(fill(_NO_WEIGHTS, folder=folder, remark=host.remark), fresh=fresh)
