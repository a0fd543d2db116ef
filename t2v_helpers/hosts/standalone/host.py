"""The standalone page as a host: it runs without a WebUI, and has its own queue and settings."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...access import Visit
from ...host import Progress, Stop
from ...readable_files import Reader
from ...settings import OUTPUT_FOLDER, Setting
from ...tasks import Tasks, TooManyWaiting
from ..console import ConsoleHost
from ..file_manager import open_folder
from .gate import Entrance
from .live_progress import LiveProgress
from .stored_settings import StoredSettings

if TYPE_CHECKING:
    from PIL import Image

THIS_COMPUTER = Entrance()
"""The default rules: only visitors on this computer."""
PREVIEW_EVERY = 2
"""Number of steps from one preview to the next."""
MOST_WAITING = 256
"""Maximum number of runs that wait at once; more are refused."""


class StandaloneHost(ConsoleHost):
    """The standalone page as a host."""

    name = "standalone page"
    remark = ""
    opens_folders = True

    def __init__(
        self,
        models: Path,
        outputs: Path,
        settings: Path,
        device: str | None = None,
        loras: Path | None = None,
        *,
        entrance: Entrance = THIS_COMPUTER,
    ) -> None:
        super().__init__(device=device, loras=loras)
        self._models, self._outputs = models, outputs
        self.entrance = entrance
        self.settings = StoredSettings(settings)
        self.tasks = Tasks(MOST_WAITING)
        self.progress = LiveProgress(self.tasks)

    def setting(self, setting: Setting) -> Any:
        value = self.settings[setting]
        if setting == OUTPUT_FOLDER and value.strip() and not value.strip().startswith("~"):
            # Relative to the outputs folder: the server's working directory is temporary.
            return str(self._outputs / value.strip())
        return value

    def check(self, visit: Visit) -> None:
        """Do nothing: the gate in front of the page has checked every request."""

    def reader(self, visit: Visit) -> Reader:
        if self.entrance.names.listens and not self.entrance.password:
            return Reader()
        local = visit.is_local and not self.entrance.expects_proxy
        return Reader(everything=local, folders=self.entrance.readable)

    def models_folder(self) -> Path:
        return self._models

    def outputs_folder(self) -> Path:
        return self._outputs

    def show_progress(self, progress: Progress) -> None:
        self.progress.show_progress(progress)

    def wants_preview(self, step: int) -> bool:
        return step % PREVIEW_EVERY == 0

    def show_preview(self, image: "Image.Image") -> None:
        self.progress.show_preview(image)

    def stop_request(self) -> Stop | None:
        return self.progress.stop_request()

    def make_queued(
        self,
        function: Callable[..., Sequence[Any]],
        outputs: int,  # noqa: ARG002 - the interface's
        refuse: Callable[[str], Sequence[Any]],
    ) -> Callable[..., Any]:
        def work(task: str, *values: Any) -> Any:
            self.progress.begin()
            return function(task, *values)

        async def in_turn(task: str, *values: Any) -> Any:
            try:
                return await self.tasks.take_turn(work, task, *values)
            except TooManyWaiting:
                return refuse(task)

        return in_turn

    def close(self) -> None:
        """Ask the running task to stop, and start no others."""
        self.progress.close()
        self.tasks.close()

    def interrupt(self) -> None:
        self.progress.ask("interrupt")

    def skip(self) -> None:
        self.progress.ask("skip")

    def open_folder(self, folder: Path) -> None:
        open_folder(folder)

    def tools_for_frames(self, image: Any) -> None:
        """Add nothing: there is nowhere to send a frame to, and the image itself can be saved."""

    def connect_paste(self, models: list[Any], widgets: dict[str, Any], image: Any) -> None:
        """Do nothing: nobody else sends settings."""
