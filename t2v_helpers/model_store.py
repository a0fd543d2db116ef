"""The loaded model between runs: as much of it as the settings let stay."""

from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import NamedTuple

import torch

from ..modelscope.loading import Model, load_model
from .settings import KEEP_ALL, KEEP_UNET, VAE_CPU, VAE_FULL


class Placement(NamedTuple):
    """Where to compute and in which precision; the autoencoder may differ."""

    device: torch.device
    dtype: torch.dtype
    vae_device: torch.device
    vae_dtype: torch.dtype


def placement(device: torch.device, dtype: torch.dtype, vae_dtype: torch.dtype, vae_mode: str) -> Placement:
    """The host's choice, changed by the setting VAE Mode."""
    if vae_mode == VAE_CPU:
        return Placement(device, dtype, torch.device("cpu"), torch.float32)
    return Placement(device, dtype, device, torch.float32 if vae_mode == VAE_FULL else vae_dtype)


@dataclass(frozen=True)
class _Kept:
    folder: Path
    stamp: tuple[tuple[str, int, int], ...]
    where: Placement
    model: Model


class ModelStore:
    """At most one model. One run at a time takes it."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._kept: _Kept | None = None

    def take(self, folder: Path, where: Placement) -> Model:
        """The folder's model, ready to compute: the kept one if nothing changed. Raises ModelError, OutOfMemory."""
        with self._lock:
            stamp = _stamp(folder)
            kept, self._kept = self._kept, None
            if kept is None or (kept.folder, kept.stamp, kept.where) != (folder, stamp, where):
                del kept
                model = load_model(folder, where.device, where.dtype)
                model.autoencoder.to(device=where.vae_device, dtype=where.vae_dtype)
                kept = _Kept(folder, stamp, where, model)
            for module in (kept.model.text_encoder, kept.model.unet):
                module.to(where.device)
            kept.model.autoencoder.to(where.vae_device)
            self._kept = kept
            return kept.model

    def settle(self, keep: str) -> None:
        """After a run: let go of what may not stay on the device (`keep`: a choice of the setting)."""
        with self._lock:
            if self._kept is None or keep == KEEP_ALL:
                return
            if keep == KEEP_UNET:
                for module in (self._kept.model.text_encoder, self._kept.model.autoencoder):
                    module.to("cpu")
            else:
                self._kept = None


def _stamp(folder: Path) -> tuple[tuple[str, int, int], ...]:
    """Changes when a file of the folder does."""
    try:
        stats = [(path.name, path.stat()) for path in sorted(folder.iterdir())]
    except OSError:
        return ()
    return tuple((name, stat.st_size, stat.st_mtime_ns) for name, stat in stats)
