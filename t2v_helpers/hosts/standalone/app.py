"""The standalone page as an app: gradio's page, the links to videos, the progress of runs, and the gate around them."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ....modelscope.errors import RequestError
from ...page.real_headers import Arrivals
from ...readable_files import is_url
from .gate import Gate
from .short_errors import shorten_errors
from .stored_settings import build_settings

if TYPE_CHECKING:
    from .host import StandaloneHost

SCRIPTS = (
    Path(__file__).with_name("standalone.js"),
    Path(__file__).resolve().parents[3] / "javascript" / "text2video.js",
)
STYLES = (Path(__file__).resolve().parents[3] / "style.css", Path(__file__).with_name("standalone.css"))
FONTS = ("system-ui", "-apple-system", "Segoe UI", "sans-serif")
MONOSPACED = ("ui-monospace", "Consolas", "monospace")
"""Fonts that every system has; gradio's own come from the network."""
MOST_EVENTS = 320
"""Maximum number of events handled at once. Each run that waits for its turn is one; buttons have to work meanwhile."""
DEEPEST = 20
"""Maximum nesting depth of an event's values."""
LOAD_SCRIPT = """() => {
    if (window.text2videoSubmit) return;
    window.text2videoSubmit = () => {};
    const script = document.createElement("script");
    script.src = "text2video/page.js";
    document.head.append(script);
}"""


def build_app(host: "StandaloneHost") -> Any:
    """Return the page as a FastAPI app."""
    import gradio as gr
    from fastapi import FastAPI
    from fastapi.responses import Response

    from ...page.file_links import add_file_route
    from ...page.tab import Tab
    from ...page.widgets import CONCURRENCY, JS

    shorten_errors()
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)

    # A coroutine, since all threads may be busy.
    async def progress(body: dict[str, Any]) -> dict[str, Any]:
        return host.progress.report(str(body.get("id_task")), body.get("id_live_preview", -1))

    async def send_script() -> Response:
        return Response(_join_files(SCRIPTS), media_type="text/javascript")

    app.add_api_route("/internal/progress", progress, methods=["POST"])
    app.add_api_route("/text2video/page.js", send_script)
    add_file_route(app, host.check)
    theme = gr.themes.Default(font=list(FONTS), font_mono=list(MONOSPACED))
    with gr.Blocks(title="text2video", css=_join_files(STYLES), theme=theme, analytics_enabled=False) as page:
        build_settings(host.settings, Tab(host).opened)
        page.load(None, None, None, **{JS: LOAD_SCRIPT})
    # gradio 4's limit of events handled at once in all.
    page.max_threads = MOST_EVENTS
    page.queue(**{CONCURRENCY: MOST_EVENTS})
    page.preprocess_data = _without_addresses(page.preprocess_data)
    mounted = gr.mount_gradio_app(app, page, path="/")
    mounted.add_middleware(Arrivals)
    mounted.add_middleware(Gate, entrance=host.entrance)
    return mounted


def _join_files(paths: Iterable[Path]) -> str:
    return "\n".join(path.read_text(encoding="utf-8") for path in paths)


def _without_addresses(preprocess: Callable[..., Any]) -> Callable[..., Any]:
    """Refuse addresses in an event's inputs: gradio would download from them, from anywhere that the server reaches."""
    import gradio as gr

    def check_and_preprocess(function: Any, inputs: list[Any], *others: Any, **options: Any) -> Any:
        try:
            if any(is_url(name) for name in _named_files(inputs)):
                raise RequestError("Upload the file instead: nothing is downloaded from addresses.")
        except RequestError as error:
            raise gr.Error(str(error)) from error
        return preprocess(function, inputs, *others, **options)

    return check_and_preprocess


def _named_files(value: Any, deeper: int = DEEPEST) -> list[str]:
    """Return everything in the inputs that gradio takes for a file's path. A file's `url` is only for the page."""
    if not deeper:
        raise RequestError("The request's values are nested too deeply.")
    if isinstance(value, list):
        return [name for one in value for name in _named_files(one, deeper - 1)]
    if isinstance(value, dict):
        path = value.get("path")
        return [*([path] if isinstance(path, str) else []), *_named_files(list(value.values()), deeper - 1)]
    return []
