"""Measures loading the UNet from disk with each implementation in a separate process, with its peak resident memory."""

import json
import re
import subprocess
import sys
import time
from pathlib import Path

import torch
from torch import Tensor

from ..modelscope.checkpoints.diffusers_keys import to_diffusers, unet_names
from ..modelscope.checkpoints.find_parts import Source
from ..modelscope.checkpoints.load import load_part
from ..modelscope.checkpoints.parts import UNET
from ..modelscope.config import ModelConfig, UNetConfig
from ..modelscope.network.unet3d import UNet3D
from .rivals import diffusers_config, modelscope_unet

HEADER = ("way", "ready after s", "every weight read after s", "peak memory GB", "of which after the imports")
WAYS = ("this project", "diffusers", "modelscope's own")
PTH, DIFFUSERS = "text2video_pytorch_model.pth", "unet"


def measure(folder: Path) -> list[list[str]]:
    """Write synthetic checkpoints into the folder, and load them with each implementation."""
    write_checkpoints(folder)
    rows = []
    for way in WAYS:
        command = [sys.executable, "-m", __spec__.name, way, str(folder)]
        figures = json.loads(
            subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1]
        )
        rows.append([way, *(f"{value:.2f}" for value in figures)])
    return rows


def write_checkpoints(folder: Path) -> None:
    """Write the full-size UNet in half precision: the original's .pth and diffusers' folder."""
    from safetensors.torch import save_file

    with torch.device("meta"):
        shapes = UNet3D(UNetConfig()).state_dict()
    state = {name: torch.full(value.shape, 0.01, dtype=torch.float16) for name, value in shapes.items()}
    torch.save(state, folder / PTH)
    (folder / DIFFUSERS).mkdir()
    renamed = to_diffusers(state, unet_names(ModelConfig()))
    save_file(renamed, folder / DIFFUSERS / "diffusion_pytorch_model.safetensors", metadata={"format": "pt"})
    config = diffusers_config(UNetConfig()) | {"_class_name": "UNet3DConditionModel"}
    (folder / DIFFUSERS / "config.json").write_text(json.dumps(config), encoding="utf-8")


def load(way: str, folder: Path) -> dict[str, Tensor]:
    """Load a network with one implementation, and return its weights."""
    if way == "this project":
        path = folder / PTH
        return load_part(UNET, Source(path, (path,)), ModelConfig()).state_dict()
    if way == "diffusers":
        from diffusers.models.unets.unet_3d_condition import UNet3DConditionModel

        network = UNet3DConditionModel.from_pretrained(folder / DIFFUSERS, torch_dtype=torch.float16)
        return dict(network.state_dict())
    # As in modelscope's pipeline: random initialisation in single precision, then a strict load of a full copy.
    original = modelscope_unet(UNetConfig(), None)
    original.load_state_dict(torch.load(folder / PTH, map_location="cpu"), strict=True)
    return dict(original.half().state_dict())


def peak_gigabytes() -> float:
    """Return the peak of this process's resident memory so far, in GB."""
    if sys.platform == "win32":
        raise SystemExit("The load benchmark needs Linux or macOS.")
    if Path("/proc/self/status").exists():
        # Not ru_maxrss, which a child inherits from its parent.
        peak = re.search(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text(encoding="ascii"))
        assert peak
        return int(peak[1]) * 1024 / 1e9
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e9


def main(way: str, folder: Path) -> None:
    """Load with one implementation, and print the figures."""
    imports = {"diffusers": "diffusers.models.unets.unet_3d_condition", "this project": "torch"}
    __import__(imports.get(way, "modelscope.models.multi_modal.video_synthesis.unet_sd"))
    before, start = peak_gigabytes(), time.perf_counter()
    state = load(way, folder)
    ready = time.perf_counter() - start
    sum(float(value.sum()) for value in state.values())
    touched = time.perf_counter() - start
    sys.stdout.write(json.dumps([ready, touched, peak_gigabytes(), peak_gigabytes() - before]) + "\n")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
