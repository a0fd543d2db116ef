"""The host of a command line: nothing else runs, and the progress bar shows how far a run is."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..generation.outputs import DEFAULT_FOLDER
from ..host import LORA_FOLDER, Devices, Progress, Stop
from ..settings import Setting

if TYPE_CHECKING:
    from PIL import Image

ROOT = Path(__file__).resolve().parents[2]


def models_for(root: Path) -> Path:
    """The models folder of the WebUI whose extension lies at root, else one of its own."""
    webui = root.parent.parent / "models"
    return webui if root.parent.name == "extensions" and webui.is_dir() else root / "models"


MODELS = models_for(ROOT)
"""Where models are by default."""


class ConsoleHost:
    """A command line. Its settings are what the options said, else the defaults."""

    name = "command line"

    def __init__(
        self,
        options: dict[Setting, Any] | None = None,
        device: str | None = None,
        loras: Path | None = None,
        models: Path = MODELS,
    ) -> None:
        self._options = options or {}
        self._device, self._loras, self._models = device, loras, models

    def setting(self, setting: Setting) -> Any:
        return self._options.get(setting, setting.default)

    def models_folder(self) -> Path:
        return self._models

    def lora_folder(self) -> Path:
        """The one named, else that beside the models."""
        return self._loras or self.models_folder() / LORA_FOLDER

    def outputs_folder(self) -> Path:
        return DEFAULT_FOLDER

    def devices(self) -> Devices:
        """The named device, or the best there is. Raises RequestError where it cannot be used."""
        import torch

        from ...modelscope.device import best_device, best_dtype
        from ...modelscope.errors import RequestError, first_line

        try:
            device = torch.device(self._device) if self._device else best_device()
            torch.empty(0, device=device)
        except (RuntimeError, AssertionError, NotImplementedError) as error:
            raise RequestError(f"The device {self._device!r} cannot be used: {first_line(error)}") from error
        dtype = best_dtype(device)
        return Devices(device, dtype, torch.float32 if device.type == "cpu" else dtype)

    def first_plan(self) -> str:
        return "fast"

    def reclaimable(self) -> int:
        return 0

    def room(self, release: Callable[[], None]) -> AbstractContextManager[None]:  # noqa: ARG002 - the interface's
        return nullcontext()

    def show_progress(self, progress: Progress) -> None:
        """The console's bar shows it already."""

    def wants_preview(self, step: int) -> bool:  # noqa: ARG002 - the interface's
        return False

    def show_preview(self, image: "Image.Image") -> None:
        """Not shown."""

    def stop_request(self) -> Stop | None:
        return None
