"""Chooses a run's memory plan from the model, the request, the host's device and switches, and the settings."""

import torch

from ...modelscope.device import free_memory
from ...modelscope.memory.choice import Choice, Limits, choose_plan
from ...modelscope.memory.lora_deltas import NO_LORAS, LoraDeltas
from ...modelscope.memory.plan import plan_named
from ...modelscope.memory.residency import Residency
from ...modelscope.request import VideoRequest
from ...modelscope.units import GIGABYTE
from ..host import Host
from ..settings import AUTOMATIC, BUDGET, EIGHT_BITS, PLAN


def limits(host: Host, device: torch.device, coming: int) -> Limits:
    """Return the limits that the host and the settings set.

    coming: bytes that will become free before the run begins, on a device other than the CPU.
    """
    free = free_memory(device)
    budget = host.setting(BUDGET)
    forced = host.setting(PLAN)
    return Limits(
        free=free if free is None or device.type == "cpu" else free + coming,
        budget=round(budget * GIGABYTE) if budget else None,
        forced=None if forced == AUTOMATIC else plan_named(forced),
        first=plan_named(host.first_plan()),
        eight_bits=host.setting(EIGHT_BITS),
    )


def choose_for_run(host: Host, residency: Residency, request: VideoRequest, loras: LoraDeltas = NO_LORAS) -> Choice:
    """Choose the plan for a run that is about to begin. Raises OutOfMemory, RequestError."""
    model = residency.model
    device = model.place.device
    # The UNet's weights that are kept on the device count as free: the run uses or releases them. Those of the other
    # networks stay there as well, and do not count.
    return choose_plan(model, request, limits(host, device, residency.bytes_kept(model.unet, device)), loras)
