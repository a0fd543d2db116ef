"""What the rest of the extension may ask of whoever it runs in: a WebUI, its own page, or a command line."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

from .access import Visit
from .readable_files import Reader
from .settings import Setting
from .tasks import Tasks

if TYPE_CHECKING:
    import torch
    from PIL import Image

TAB = "text2video"
"""What the tab is called, and what its elements' ids begin with; the script knows it too."""
LORA_FOLDER = "Lora"
"""Where LoRA files lie among the models by default; the WebUI's name for it."""
Stop = Literal["interrupt", "skip"]


class Progress(NamedTuple):
    """How far a run is. share: of the current video, 0..1."""

    video: int
    videos: int
    share: float
    text: str


class Devices(NamedTuple):
    """Where the host computes, and in which precision."""

    device: "torch.device"
    dtype: "torch.dtype"
    vae_dtype: "torch.dtype"


class Host(Protocol):
    """One host."""

    @property
    def name(self) -> str:
        """The host and its version."""

    def setting(self, setting: Setting) -> Any:
        """The setting's value, its default where the host has none."""

    def models_folder(self) -> Path:
        """The folder in which `ModelScope/t2v` lies."""

    def lora_folder(self) -> Path:
        """The folder in which LoRA files lie, and in folders below it."""

    def outputs_folder(self) -> Path:
        """Return where videos go by default."""

    def devices(self) -> Devices:
        """Return where to compute."""

    def first_plan(self) -> str:
        """The name of the quickest memory plan that the host's own switches for small cards allow."""

    def reclaimable(self) -> int:
        """Bytes on the device that `room` will free."""

    def room(self, release: Callable[[], None]) -> AbstractContextManager[None]:
        """Other models leave the device while inside, and come back however it ends.

        release: lets go of all of ours, where they would not fit again beside it.
        """

    def show_progress(self, progress: Progress) -> None:
        """Report how far the run is."""

    def wants_preview(self, step: int) -> bool:
        """Return whether to make a preview after this step (counted from 1)."""

    def show_preview(self, image: "Image.Image") -> None:
        """Show how the video looks so far."""

    def stop_request(self) -> Stop | None:
        """Return what the person has asked for since the last time, if anything."""


class PageHost(Host, Protocol):
    """A host with a page. remark: what to say about the host's own models, if it has any; tasks: the page's runs."""

    remark: str
    tasks: Tasks

    @property
    def opens_folders(self) -> bool:
        """Whether the page may show folders on the computer that it is served from."""

    def check(self, visit: Visit) -> None:
        """Raise Refused unless the request comes from a page of this host's."""

    def reader(self, visit: Visit) -> Reader:
        """Return which files this visitor may name, besides those that were uploaded."""

    def queued(
        self, function: Callable[..., Sequence[Any]], outputs: int, refuse: Callable[[str], Sequence[Any]]
    ) -> Callable[..., Any]:
        """Make an event's function that waits for its turn, without a thread, and then runs with progress.

        Args:
            function: Takes the page's task id and the event's values. Its last output is HTML.
            outputs: How many outputs it has.
            refuse: Gives the outputs for a task that comes when too many wait already.
        """

    def interrupt(self) -> None:
        """End the current run."""

    def skip(self) -> None:
        """End the current video."""

    def open_folder(self, folder: Path) -> None:
        """Show a folder in the system's file manager."""

    def tools_for_frames(self, image: Any) -> None:
        """Called while the page is built: buttons that send the image component elsewhere."""

    def connect_paste(self, models: list[Any], widgets: dict[str, Any]) -> None:
        """Called when the page is built: components for settings sent from elsewhere.

        models: those that take the model's name; widgets: the fields'.
        """
