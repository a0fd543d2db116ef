"""Where killed processes leave something: the folders of models, and that of the videos."""

from collections.abc import Iterator
from pathlib import Path

from ..generation.outputs import destination
from ..host import Host
from ..models.folders import model_places
from ..video.ffmpeg import OutputError
from .half_downloads import half_downloads
from .leftovers import Leftover, ended_copies, ended_runs, seen


def find_leftovers(host: Host) -> list[Leftover]:
    """All that ended processes left in the host's folders; what somebody works at is not among it."""
    return [*_among_models(host), *ended_runs(_videos(host))]


def _among_models(host: Host) -> Iterator[Leftover]:
    for folder in model_places(host):
        yield from seen(ended_copies(folder))
        yield from seen(half_downloads(folder, host.models_folder(), host.lora_folder()))


def _videos(host: Host) -> Path:
    try:
        return destination(host).root
    except OutputError:
        # Told by the run that asks for it; nothing can have been left in what is no folder.
        return host.outputs_folder()
