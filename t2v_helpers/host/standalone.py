"""The tab on a page of its own, without any WebUI: python run.py ui."""

import argparse
import logging
import os
import socket
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..outputs import DEFAULT_FOLDER
from ..settings import OUTPUT_FOLDER, Setting
from .console import MODELS, ROOT, ConsoleHost
from .file_manager import open_folder
from .interface import LORA_FOLDER, Progress, Stop
from .stored_settings import StoredSettings, build_settings
from .tasks import Tasks

if TYPE_CHECKING:
    from PIL import Image

LOCALHOST = "127.0.0.1"
SCRIPTS = (Path(__file__).with_name("standalone.js"), ROOT / "javascript" / "text2video.js")
STYLES = (ROOT / "style.css", Path(__file__).with_name("standalone.css"))
MOST_EVENTS = 64
"""Events handled at once: whoever generates waits in our own queue, and buttons work meanwhile."""
PREVIEW_EVERY = 2
"""Steps between previews."""


class StandaloneHost(ConsoleHost):
    """A page with a queue of its own."""

    name = "standalone page"
    remark = ""
    opens_folders = True

    def __init__(
        self, models: Path, outputs: Path, settings: Path, device: str | None = None, loras: Path | None = None
    ) -> None:
        super().__init__(device=device, loras=loras)
        self._models, self._outputs = models, outputs
        self.settings = StoredSettings(settings)
        self.tasks = Tasks()

    def setting(self, setting: Setting) -> Any:
        value = self.settings[setting]
        if setting == OUTPUT_FOLDER and value.strip() and not value.strip().startswith("~"):
            # The server's working directory does not stay.
            return str(self._outputs / value.strip())
        return value

    def models_folder(self) -> Path:
        return self._models

    def outputs_folder(self) -> Path:
        return self._outputs

    def show_progress(self, progress: Progress) -> None:
        self.tasks.show_progress(progress)

    def wants_preview(self, step: int) -> bool:
        return step % PREVIEW_EVERY == 0

    def show_preview(self, image: "Image.Image") -> None:
        self.tasks.show_preview(image)

    def stop_request(self) -> Stop | None:
        return self.tasks.stop_request()

    def queued(self, function: Callable[..., list[Any]], outputs: int) -> Callable[..., Any]:  # noqa: ARG002
        return self.tasks.queued(function)

    def interrupt(self) -> None:
        self.tasks.ask("interrupt")

    def skip(self) -> None:
        self.tasks.ask("skip")

    def open_folder(self, folder: Path) -> None:
        open_folder(folder)

    def tools_for_frames(self, image: Any) -> None:
        """There is nowhere to send a frame to; the image itself can be saved."""

    def connect_paste(self, models: list[Any], widgets: dict[str, Any]) -> None:
        """Nobody else sends settings."""


def build_app(host: StandaloneHost) -> Any:
    """The page as a FastAPI app."""
    import gradio as gr
    from fastapi import FastAPI
    from fastapi.responses import Response

    from ..components import CONCURRENCY, JS
    from ..serving import add_file_route
    from ..ui import Tab

    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    script = "\n".join(path.read_text(encoding="utf-8") for path in SCRIPTS)
    style = "\n".join(path.read_text(encoding="utf-8") for path in STYLES)

    def progress(body: dict[str, Any]) -> dict[str, Any]:
        return host.tasks.report(str(body.get("id_task")), body.get("id_live_preview", -1))

    app.add_api_route("/internal/progress", progress, methods=["POST"])
    app.add_api_route("/text2video/page.js", lambda: Response(script, media_type="text/javascript"))
    add_file_route(app)
    with gr.Blocks(title="text2video", css=style, analytics_enabled=False) as page:
        build_settings(host.settings, Tab(host).opened)
        page.load(None, None, None, **{JS: LOAD_SCRIPT})
    page.queue(**{CONCURRENCY: MOST_EVENTS})
    return gr.mount_gradio_app(app, page, path="/")


LOAD_SCRIPT = """() => {
    if (window.text2videoSubmit) return;
    window.text2videoSubmit = () => {};
    const script = document.createElement("script");
    script.src = "text2video/page.js";
    document.head.append(script);
}"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve the page until Ctrl-C."""
    parser = argparse.ArgumentParser(prog="run.py ui", description="Serves the text2video tab without a WebUI.")
    parser.add_argument("--port", type=int, default=7861, help="default: %(default)s")
    parser.add_argument("--models-dir", type=Path, default=MODELS, metavar="DIR", help="default: %(default)s")
    parser.add_argument("--lora-dir", type=Path, metavar="DIR", help=f"default: {LORA_FOLDER} in that folder")
    parser.add_argument("--output-dir", type=Path, default=DEFAULT_FOLDER, metavar="DIR", help="default: %(default)s")
    parser.add_argument(
        "--settings", type=Path, default=ROOT / "settings.json", metavar="FILE", help="default: %(default)s"
    )
    parser.add_argument("--device", help="where to compute: cpu, cuda, mps; default: the best there is")
    parser.add_argument("--listen", action="store_true", help="let other machines in; there is no password")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    folders = (options.models_dir.resolve(), options.output_dir.resolve(), options.settings.resolve())
    try:
        listener = socket.create_server(("0.0.0.0" if options.listen else LOCALHOST, options.port))
    except (OSError, OverflowError) as error:
        sys.stderr.write(f"Error: port {options.port} cannot be used ({error}). Choose another with --port.\n")
        return 1
    with listener:
        loras = options.lora_dir.resolve() if options.lora_dir else None
        return _serve(StandaloneHost(*folders, options.device, loras), listener)


def _serve(host: StandaloneHost, listener: socket.socket) -> int:
    import uvicorn

    app = build_app(host)
    port = listener.getsockname()[1]
    sys.stdout.write(f"Open in a browser: http://{LOCALHOST}:{port}  (Ctrl-C ends it)\n")
    sys.stdout.flush()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as empty:
        # gradio serves whatever lies in the working directory.
        os.chdir(empty)
        try:
            server = uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1))
            server.run(sockets=[listener])
        finally:
            # A run ends within a step, so that Ctrl-C does.
            host.tasks.close()
            os.chdir(ROOT)
    return 0


if __name__ == "__main__":
    sys.exit(main())
