"""Finds leftovers in all of a host's folders."""

from collections.abc import Iterator
from pathlib import Path

from ..generation.outputs import destination
from ..host import Host
from ..models.folders import list_places
from ..video.ffmpeg import OutputError
from .half_downloads import find_half_downloads
from .leftovers import Leftover, find_ended_copies, find_ended_runs, skip_unreadable


def find_leftovers(host: Host) -> list[Leftover]:
    """Return all leftovers in the host's folders. Files that a running process is working on are not included."""
    return [*_find_among_models(host), *find_ended_runs(_find_videos(host))]


def _find_among_models(host: Host) -> Iterator[Leftover]:
    for folder in list_places(host):
        yield from skip_unreadable(find_ended_copies(folder))
        yield from skip_unreadable(find_half_downloads(folder, host.models_folder(), host.lora_folder()))


def _find_videos(host: Host) -> Path:
    try:
        return destination(host).root
    except OutputError:
        # A run that uses this folder reports the error; an invalid folder cannot hold leftovers.
        return host.outputs_folder()
