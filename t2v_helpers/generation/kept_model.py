"""Keeps the loaded model between runs, as far as the settings allow."""

import gc
from pathlib import Path
from threading import Lock
from typing import NamedTuple

from ...modelscope.checkpoints.load import load_model
from ...modelscope.errors import is_memory_error
from ...modelscope.memory.plan import Plan
from ...modelscope.memory.residency import Residency
from ...modelscope.model import Model
from ..models.folders import ModelFolder
from ..places import Places
from ..settings import KEEP_ALL, KEEP_NOTHING


class _Kept(NamedTuple):
    folder: ModelFolder
    stamp: tuple[tuple[str, int, int], ...]
    where: Places
    residency: Residency


class ModelStore:
    """A store for one model, with its weights on the device. Only one run at a time may take it."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._kept: _Kept | None = None

    def take(self, folder: ModelFolder, where: Places) -> Residency:
        """Return the folder's model, the one that is kept if nothing has changed. Raises ModelError, OutOfMemory."""
        with self._lock:
            kept = self._kept
            if kept is None or kept[:3] != (folder, _stamp(folder.path, kept.residency.model), where):
                self._drop()
                model = load_model(folder.path, *where, folder.library)
                self._kept = kept = _Kept(folder, _stamp(folder.path, model), where, Residency(model))
            return kept.residency

    @property
    def kept(self) -> Residency | None:
        """The model that is kept, or None."""
        kept = self._kept
        return kept.residency if kept else None

    def finish_run(self, keep: str, plan: Plan | None = None) -> None:
        """Free what the setting does not keep after a run, and bring to the device what it keeps there.

        Args:
            keep: The setting's value.
            plan: The plan that the run ended with. Weights that were not resident stay in main memory.
        """
        with self._lock:
            if keep == KEEP_NOTHING:
                self._drop()
            elif self._kept and plan and plan.is_resident:
                try:
                    self._kept.residency.keep(everything=keep == KEEP_ALL)
                except (MemoryError, RuntimeError, OSError) as error:
                    if not is_memory_error(error):
                        raise
                    self._drop()

    def _drop(self) -> None:
        kept, self._kept = self._kept, None
        if kept:
            kept.residency.release()
            del kept
            gc.collect()


def _stamp(path: Path, model: Model) -> tuple[tuple[str, int, int], ...]:
    """Return names, sizes and times of the model's files and those in or right below its folder, to detect changes."""
    near = [path] if path.is_file() else sorted([*path.glob("*"), *path.glob("*/*")])
    paths = [*near, *model.files]
    try:
        stats = [(str(path), path.stat()) for path in paths]
    except OSError:
        return ()
    return tuple((name, stat.st_size, stat.st_mtime_ns) for name, stat in stats)
