"""Measures the time and peak memory of a whole run at full size, from files to frames, in a separate process."""

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..modelscope.checkpoints.load import load_model
from ..modelscope.config import FilesConfig, ModelConfig
from ..modelscope.device import Place, free_memory
from ..modelscope.memory.choice import Limits, choose_plan
from ..modelscope.memory.residency import Residency
from ..modelscope.model import outline
from ..modelscope.pipeline import generate
from ..modelscope.request import VideoRequest
from ..modelscope.run_options import RunOptions
from .load import peak_gigabytes
from .weights import random_weights

HEADER = ("run", "plan", "estimated need GB", "seconds", "peak memory GB", "of which after the imports")
REQUEST: dict[str, Any] = {"prompt": "a red ball", "frames": 2, "width": 64, "height": 64, "steps": 2, "seed": 0}
NAME = "load, and make 2 frames of 64 x 64 in 2 steps"
CPU = Place(torch.device("cpu"), torch.float32)


def measure(folder: Path) -> list[list[str]]:
    """Write a model with random weights into the folder, and make a clip with it."""
    write_model(folder)
    command = [sys.executable, "-m", __spec__.name, str(folder)]
    result = subprocess.run(command, check=True, capture_output=True, text=True)
    plan, *figures = json.loads(result.stdout.splitlines()[-1])
    return [[NAME, plan, *(f"{value:.2f}" for value in figures)]]


def write_model(folder: Path) -> None:
    """Write the 1.7B's files in half precision, with random weights."""
    model, files = outline(ModelConfig(), CPU, CPU), FilesConfig()
    parts: dict[str, nn.Module] = {
        files.ckpt_unet: model.unet,
        files.ckpt_autoencoder: model.autoencoder,
        files.ckpt_clip: model.text_encoder,
    }
    folder.mkdir(exist_ok=True)
    for name, part in parts.items():
        torch.save({key: value.half() for key, value in random_weights(part).items()}, folder / name)


def main(folder: Path) -> None:
    """Make the clip and print the figures."""
    before, start = peak_gigabytes(), time.perf_counter()
    request = VideoRequest(**REQUEST)
    model = load_model(folder, CPU)
    choice = choose_plan(model, request, Limits(free=free_memory(CPU.device)))
    generate(Residency(model), request, RunOptions(plan=choice.plan))
    seconds, peak = time.perf_counter() - start, peak_gigabytes()
    sys.stdout.write(json.dumps([choice.plan.name, choice.needs / 1e9, seconds, peak, peak - before]) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
