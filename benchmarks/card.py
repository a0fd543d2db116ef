"""Guided steps of the full-size network on a graphics card: every plan and the rivals, each in a process of its own.

Memory is what torch reserved at the most, which other programs cannot have. Steps are those of a run: weights come as
the plan says, and a first step, which is not timed, finds the kernels.
"""

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor

from ..modelscope.config import UNetConfig
from ..modelscope.device import Place
from ..modelscope.errors import is_memory_error
from ..modelscope.memory.plan import BALANCED, LADDER
from ..modelscope.memory.residency import use_weights
from ..modelscope.network.unet3d import PassOptions, UNet3D
from .rivals import diffusers_unet, modelscope_unet
from .weights import random_weights

HEADER = (
    "frames and size",
    "way",
    "seconds a step",
    "times as long as ours, balanced",
    "GiB reserved",
    "within the limit",
)
RIVALS = ("diffusers", "modelscope")
GIB = 2**30
STEPS = 3


class Case(NamedTuple):
    """Latents [1, 4, frames, height, width], and how much memory the smallest plan may have."""

    frames: int
    height: int
    width: int
    limit_gib: float


CASES = {
    "24 of 256 x 256": Case(24, 32, 32, 1.0),
    "125 of 256 x 256": Case(125, 32, 32, 1.5),
    "250 of 256 x 256": Case(250, 32, 32, 2.25),
    "30 of 1024 x 576": Case(30, 72, 128, 2.25),
}


class Figures(NamedTuple):
    """The figures of one way. None where memory ran out."""

    seconds: float | None
    gib: float


def measure() -> list[list[str]]:
    """Return a row per size and way; the smallest plan also within its limit."""
    rows = []
    for name, case in CASES.items():
        found = {way: _in_a_process(name, way) for way in (*(plan.name for plan in LADDER), *RIVALS)}
        held = _in_a_process(name, LADDER[-1].name, case.limit_gib).seconds is not None
        mine = found[BALANCED.name].seconds
        for way, (seconds, gib) in found.items():
            limit = f"{case.limit_gib} GiB: {'yes' if held else 'no'}" if way == LADDER[-1].name else ""
            ratio = f"{seconds / mine:.2f}" if seconds and mine else ""
            rows.append([name, way, f"{seconds:.2f}" if seconds else "out of memory", ratio, f"{gib:.2f}", limit])
    return rows


def _in_a_process(name: str, way: str, limit_gib: float = 0) -> Figures:
    command = [sys.executable, "-m", __spec__.name, name, way, str(limit_gib)]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return Figures(*json.loads(output.splitlines()[-1]))


def figures(case: Case, way: str, limit_gib: float, config: UNetConfig, place: Place) -> Figures:
    """Time one way. limit_gib: how many GiB torch may reserve; 0 for all there is."""
    on_card = place.device.type == "cuda"
    if limit_gib:
        torch.cuda.set_per_process_memory_fraction(limit_gib * GIB / torch.cuda.get_device_properties(0).total_memory)
    try:
        with torch.inference_mode(), _way(way, case, config, place) as step:
            seconds = _timed(step, on_card)
    except RuntimeError as error:
        if not is_memory_error(error):
            raise
        seconds = None
    return Figures(seconds, torch.cuda.max_memory_reserved() / GIB if on_card else 0.0)


def _timed(step: Callable[[], object], on_card: bool) -> float:
    seconds = []
    for _ in range(1 + STEPS):
        start = time.perf_counter()
        step()
        if on_card:
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[1:])


@contextmanager
def _way(way: str, case: Case, config: UNetConfig, place: Place) -> Iterator[Callable[[], object]]:
    with torch.device("meta"):
        unet = UNet3D(config)
    state = {name: value.to(place.dtype) for name, value in random_weights(unet).items()}
    x = torch.randn(1, config.in_dim, case.frames, case.height, case.width).to(*place)
    texts = [torch.randn(1, 77, config.context_dim).to(*place) for _ in range(2)]
    t = torch.tensor([500], device=place.device)
    if way in RIVALS:
        yield _rival(way, config, {name: value.to(place.device) for name, value in state.items()}, x, t, texts)
        return
    unet.load_state_dict(state, assign=True)
    plan = next(plan for plan in LADDER if plan.name == way)
    with use_weights(unet.eval(), plan, place):
        contexts = [unet.text_context(text) for text in texts]
        yield lambda: unet.predict_noise(x, t, contexts, PassOptions(plan.chunk_budget, plan.batch_cfg))


def _rival(
    way: str, config: UNetConfig, state: dict[str, Tensor], x: Tensor, t: Tensor, texts: list[Tensor]
) -> Callable[[], object]:
    """diffusers takes both texts as one batch, the original one after the other."""
    if way == "diffusers":
        diffusers = diffusers_unet(config, state)
        twice, both = torch.cat([x, x]), torch.cat(texts)
        return lambda: diffusers(twice, t, both, return_dict=False)
    original = modelscope_unet(config, state)
    return lambda: [original(x, t, text) for text in texts]


if __name__ == "__main__":
    name, way, limit_gib = sys.argv[1:]
    card = Place(torch.device("cuda"), torch.float16)
    sys.stdout.write(json.dumps(figures(CASES[name], way, float(limit_gib), UNetConfig(), card)) + "\n")
