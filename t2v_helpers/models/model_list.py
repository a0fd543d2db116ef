"""The list of models that a page offers. The folders are listed again only when one of them has changed."""

import os
import time
from collections.abc import Iterator
from pathlib import Path
from threading import Lock
from typing import NamedTuple

from ..host import Host
from .folders import ModelFolder, base_folder, entries, find_models, find_named, model_roots

COARSEST_CLOCK = 3.0
"""Seconds within which a file system may give two changes of a folder the same timestamp."""


class _Listing(NamedTuple):
    roots: tuple[Path, ...]
    stamps: dict[Path, int]
    models: list[ModelFolder]


class ModelList:
    """The models in a host's folders."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._lock = Lock()
        self._listing: _Listing | None = None

    def models(self, *, refresh: bool = False) -> list[ModelFolder]:
        """Return all models, the miniature last. refresh: list the folders even if they have not changed."""
        roots = (base_folder(self._host.models_folder()), *model_roots(self._host))
        with self._lock:
            listing = self._listing
            if refresh or listing is None or listing.roots != roots or _has_changed(listing.stamps):
                # Timestamps come first, so that changes during the listing are noticed the next time.
                stamps = {path: _stamp(path) for path in _watched(roots)}
                models = find_models(self._host)
                self._listing = _Listing(roots, stamps, models) if _are_settled(stamps) else None
                return models
            return listing.models

    def names(self, *, refresh: bool = False) -> list[str]:
        """Return the names of all models."""
        return [model.name for model in self.models(refresh=refresh)]

    def named(self, name: str) -> ModelFolder:
        """Return the model with this name. Raises ModelError, which lists the others, if there is none."""
        return find_named(self._host, self.models(), name)


def _watched(roots: tuple[Path, ...]) -> Iterator[Path]:
    """Yield all paths whose changes may change the list of models."""
    for root in roots:
        yield root
        for path in entries(root):
            yield path
            for inside in entries(path):
                yield from (inside, inside / "unet")


def _stamp(path: Path) -> int:
    """Return the time of the last addition to a folder or removal from it; a negative number if it is no folder."""
    try:
        return path.stat().st_mtime_ns if os.path.isdir(path) else -1  # noqa: PTH112 - False if it cannot be read
    except OSError:
        return -1


def _has_changed(stamps: dict[Path, int]) -> bool:
    return any(_stamp(path) != stamp for path, stamp in stamps.items())


def _are_settled(stamps: dict[Path, int]) -> bool:
    """Return whether any later change of a folder will change its timestamp."""
    return max(stamps.values(), default=0) < (time.time() - COARSEST_CLOCK) * 1e9
