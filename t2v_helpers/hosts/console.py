"""The command line as a host: nothing else runs there, and a progress bar shows the progress of a run."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..generation.outputs import DEFAULT_FOLDER
from ..host import LORA_FOLDER, Devices, Progress, Stop, Upscale
from ..settings import Setting

if TYPE_CHECKING:
    from PIL import Image

ROOT = Path(__file__).resolve().parents[2]


def models_for(root: Path) -> Path:
    """Return the WebUI's models folder if root is one of its extensions, else the folder `models` in root."""
    webui = root.parent.parent / "models"
    return webui if root.parent.name == "extensions" and webui.is_dir() else root / "models"


MODELS = models_for(ROOT)
"""The default folder of models."""


class ConsoleHost:
    """A command line as a host. Its settings come from the options, or else are the defaults."""

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
        """Return the folder that was named, or else the one in the models folder."""
        return self._loras or self.models_folder() / LORA_FOLDER

    def outputs_folder(self) -> Path:
        return DEFAULT_FOLDER

    def upscalers(self) -> dict[str, Upscale]:
        from ..models.upscalers import find_upscalers

        return find_upscalers(self.models_folder(), lambda: self.devices().device)

    def devices(self) -> Devices:
        """Return the device that was named, or the best one. Raises RequestError if it cannot be used."""
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
        """Do nothing: the console's progress bar already shows it."""

    def wants_preview(self, step: int) -> bool:  # noqa: ARG002 - the interface's
        return False

    def show_preview(self, image: "Image.Image") -> None:
        """Do nothing: a console shows no pictures."""

    def stop_request(self) -> Stop | None:
        return None
