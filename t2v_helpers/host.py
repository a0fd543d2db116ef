"""The interface to the host in which the extension runs: a WebUI, its own page, or a command line."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol, TypeAlias

from .access import Visit
from .readable_files import Reader
from .settings import Setting
from .tasks import Tasks

if TYPE_CHECKING:
    import torch
    from PIL import Image

TAB = "text2video"
"""The tab's name, and the prefix of its elements' ids. The page's script uses it, too."""
LORA_FOLDER = "Lora"
"""The default folder of LoRA files, inside the models folder, as the WebUI calls it."""
Stop = Literal["interrupt", "skip"]
Upscale: TypeAlias = "Callable[[Image.Image, int, int], Image.Image]"
"""Enlarges a picture to about a width and a height."""


class Progress(NamedTuple):
    """Progress of a run. video: the current one, counted from 1; share: the part of it that is done, 0..1."""

    video: int
    videos: int
    share: float
    text: str


class Devices(NamedTuple):
    """The device on which the host computes, and the precisions of the model and of the autoencoder."""

    device: "torch.device"
    dtype: "torch.dtype"
    vae_dtype: "torch.dtype"


class Host(Protocol):
    """The host in which the extension runs."""

    @property
    def name(self) -> str:
        """The host and its version."""

    def setting(self, setting: Setting) -> Any:
        """Return a setting's value, or its default if the host has no value."""

    def models_folder(self) -> Path:
        """Return the folder that contains `ModelScope/t2v`."""

    def lora_folder(self) -> Path:
        """Return the folder that contains LoRA files, also in its subfolders."""

    def outputs_folder(self) -> Path:
        """Return the default folder for videos."""

    def upscalers(self) -> dict[str, Upscale]:
        """Return the host's upscalers by name."""

    def devices(self) -> Devices:
        """Return the device to compute on, and the precisions."""

    def first_plan(self) -> str:
        """Return the name of the quickest memory plan that the host's own options for small cards allow."""

    def reclaimable(self) -> int:
        """Return how many bytes on the device `room` will free."""

    def room(self, release: Callable[[], None]) -> AbstractContextManager[None]:
        """Take the host's models off the device within the context, and bring them back however it ends.

        release: frees our model, in case the host's models do not fit on the device together with it.
        """

    def show_progress(self, progress: Progress) -> None:
        """Show the progress of the run."""

    def wants_preview(self, step: int) -> bool:
        """Return whether to make a preview after this step (counted from 1)."""

    def show_preview(self, image: "Image.Image") -> None:
        """Show a picture of the video so far."""

    def stop_request(self) -> Stop | None:
        """Return what the person has asked for since the last call, if anything."""


class PageHost(Host, Protocol):
    """A host with a page. remark: what to say about the host's own models, if it has any; tasks: the page's runs."""

    remark: str
    tasks: Tasks

    @property
    def opens_folders(self) -> bool:
        """True if the page may open folders on the computer that serves it."""

    def check(self, visit: Visit) -> None:
        """Check that a request comes from one of this host's pages. Raises Refused."""

    def reader(self, visit: Visit) -> Reader:
        """Return a visitor's rights to name files, other than uploaded ones."""

    def make_queued(
        self, function: Callable[..., Sequence[Any]], outputs: int, refuse: Callable[[str], Sequence[Any]]
    ) -> Callable[..., Any]:
        """Return a function for an event that waits for its turn, without a thread, and then runs with progress.

        Args:
            function: Takes the page's task id and the event's values. Its last output is HTML.
            outputs: Number of the function's outputs.
            refuse: Returns the outputs for a task that arrives when too many are waiting already.
        """

    def interrupt(self) -> None:
        """End the current run."""

    def skip(self) -> None:
        """End the current video."""

    def open_folder(self, folder: Path) -> None:
        """Show a folder in the system's file manager."""

    def tools_for_frames(self, image: Any) -> None:
        """Add buttons that send the image component elsewhere. Called while the page is built."""

    def connect_paste(self, models: list[Any], widgets: dict[str, Any], image: Any) -> None:
        """Connect the components that receive what is sent from elsewhere. Called when the page is built.

        Args:
            models: Components that receive the model's name.
            widgets: Components of the request's fields, by name.
            image: The component that receives pictures.
        """
