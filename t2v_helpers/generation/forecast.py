"""The memory plan of a run: the host's device and switches, the settings, and what the tab says before a run."""

import torch

from ...modelscope.checkpoints.find_parts import read_model_config
from ...modelscope.config import ModelConfig
from ...modelscope.device import free_memory
from ...modelscope.errors import TextToVideoError
from ...modelscope.memory.choice import Choice, Limits, choose_plan
from ...modelscope.memory.deltas import NO_LORAS, AppliedLoras
from ...modelscope.memory.plan import plan_named
from ...modelscope.memory.residency import Residency
from ...modelscope.model import Model, outline
from ...modelscope.request import VideoRequest
from ...modelscope.units import GIGABYTE
from ..host import Host
from ..models.folders import ModelFolder
from ..models.known import past_training
from ..places import Places, places
from ..settings import BUDGET, EIGHT_BITS, PLAN, PLAN_AUTOMATIC, VAE
from .model_store import ModelStore


def limits(host: Host, device: torch.device, coming: int) -> Limits:
    """Return what the host and the settings allow.

    coming: bytes of a device other than the CPU that will be free when the run begins.
    """
    free = free_memory(device)
    budget = host.setting(BUDGET)
    forced = host.setting(PLAN)
    return Limits(
        free=free if free is None or device.type == "cpu" else free + coming,
        budget=round(budget * GIGABYTE) if budget else None,
        forced=None if forced == PLAN_AUTOMATIC else plan_named(forced),
        first=plan_named(host.first_plan()),
        eight_bits=host.setting(EIGHT_BITS),
    )


def choose_for_run(host: Host, residency: Residency, request: VideoRequest, loras: AppliedLoras = NO_LORAS) -> Choice:
    """Choose the plan for a run that is about to begin. Raises OutOfMemory, RequestError."""
    model = residency.model
    device = model.place.device
    # What is kept there since the last run is used or released. Only the UNet: the others stay beside it.
    return choose_plan(model, request, limits(host, device, residency.bytes_kept(model.unet, device)), loras)


class Forecast:
    """Says what a run would need, from the model's configuration alone."""

    def __init__(self, host: Host, store: ModelStore) -> None:
        self._host, self._store = host, store
        self._last: tuple[tuple[ModelConfig, Places], Model] | None = None

    def __call__(self, folder: ModelFolder, width: int, height: int, frames: int, draft: int = 1) -> str:
        """One sentence; what is wrong, if the run could not begin."""
        try:
            request = VideoRequest(width=width, height=height, frames=frames, draft=draft, seed=0)
            where = places(*self._host.devices(), self._host.setting(VAE))
            model = self._outline(read_model_config(folder.path), where)
            choice = choose_plan(model, request, self._limits(where.model.device))
        except TextToVideoError as error:
            return str(error)
        sentences = f"{frames} frames: {choice}", past_training(folder.path, request)
        return ". ".join(filter(None, sentences))

    def _limits(self, device: torch.device) -> Limits:
        """As they will be when the host's models have left the device."""
        kept = self._store.kept
        ours = kept.bytes_kept(kept.model.unet, device) if kept else 0
        return limits(self._host, device, self._host.reclaimable() + ours)

    def _outline(self, config: ModelConfig, where: Places) -> Model:
        if self._last is None or self._last[0] != (config, where):
            self._last = (config, where), outline(config, *where)
        return self._last[1]
