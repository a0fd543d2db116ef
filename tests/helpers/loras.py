"""LoRA files as their trainers write them, for the golden networks."""

import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from ...benchmarks.rivals import diffusers_unet
from ...modelscope.checkpoints.diffusers_keys import unet_name
from .support import small_model

RANK = 2
CLONEOFSIMO_SEED, STABLE_SEED = 1284, 1294
"""What the golden files' trainers were seeded with: the same numbers make the same files, bit for bit."""
Layer = tuple[str, nn.Module]


@functools.cache
def layers() -> list[Layer]:
    """What the trainers go through, in diffusers' own order."""
    unet = small_model().unet
    theirs = diffusers_unet(unet.config, unet.state_dict())
    kinds = (nn.Linear, nn.Conv2d, nn.Conv3d)
    return [(name, module) for name, module in theirs.named_modules() if isinstance(module, kinds)]


def drawn(shapes: Iterator[tuple[tuple[int, ...], float | None]], seed: int) -> list[Tensor]:
    """fp16-exact random matrices; a scale of None: as many as come in."""
    generator = torch.Generator().manual_seed(seed)
    found = []
    for shape, scale in shapes:
        factor = scale or torch.Size(shape[1:]).numel() ** -0.5
        found.append((torch.randn(shape, generator=generator) * factor).half())
    return found


def cloneofsimo_list() -> list[Tensor]:
    """The golden list without names: up, down, up, down, ... in single precision."""
    shapes = []
    for _, module in layers():
        weight: Any = module.weight
        ones = (1,) * (weight.ndim - 2)
        rank = min(RANK, *weight.shape[:2])
        shapes += [((weight.shape[0], rank, *ones), 0.15), ((rank, *weight.shape[1:]), None)]
    return [x.float() for x in drawn(iter(shapes), CLONEOFSIMO_SEED)]


def stable_names(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """A webui file's names for diffusers' ones."""
    unet = small_model().unet
    ours = {unet_name(name, unet.config): name for name, _ in unet.named_parameters() if name.endswith(".weight")}
    kept = ("conv_in", "conv_out", "time_embedding.linear_1", "time_embedding.linear_2")
    found = {}
    for name, tensor in tensors.items():
        module, _, factor = name.rpartition(".")
        original = module if module in kept else ours[f"{module}.weight"].removesuffix(".weight")
        found[f"{original}.{factor}"] = tensor[..., None] if "proj_" in module.split(".")[-1] else tensor
    return found


def stable_tensors() -> dict[str, Tensor]:
    """The golden stable_lora tensors, by diffusers' names."""
    names, shapes = [], []
    for name, module in layers():
        weight: Any = module.weight
        side = weight.shape[2] if weight.ndim > 2 else 1
        rank = RANK * side
        names += [f"{name}.lora_A", f"{name}.lora_B"]
        shapes += [((rank, weight.shape[1] * side), None), ((weight.shape[0] * side, rank), 0.15)]
    return dict(zip(names, drawn(iter(shapes), STABLE_SEED), strict=True))


def write(folder: Path, kind: str) -> Path:
    """A LoRA file of that kind."""
    path = folder / f"{kind}.{'pt' if kind == 'cloneofsimo' else 'safetensors'}"
    match kind:
        case "cloneofsimo":
            torch.save(cloneofsimo_list(), path)
        case "stable_full":
            save_file({name: x.float() for name, x in stable_tensors().items()}, path)
        case "stable_webui":
            save_file(stable_names(stable_tensors()), path, {"stable_lora_text_to_video": "v1"})
        case _:
            save_file(renamed(RENAMED[kind]), path)
    return path


def renamed(rename: Callable[[str, bool], str]) -> dict[str, Tensor]:
    """The golden list's pairs under names. rename: the module and whether it is the upper matrix."""
    factors = cloneofsimo_list()
    names = [name for name, _ in layers()]
    return {rename(names[number // 2], number % 2 == 0): factor for number, factor in enumerate(factors)}


RENAMED: dict[str, Callable[[str, bool], str]] = {
    "peft": lambda name, up: f"unet.{name}.lora_{'B' if up else 'A'}.weight",
    "peft_adapter": lambda name, up: f"unet.{name}.lora_{'B' if up else 'A'}.default.weight",
    "diffusers": lambda name, up: f"unet.{name}.lora.{'up' if up else 'down'}.weight",
    "diffusers_linear": lambda name, up: f"unet.{name}.lora_linear_layer.{'up' if up else 'down'}.weight",
    "kohya": lambda name, up: f"lora_unet_{name.replace('.', '_')}.lora_{'up' if up else 'down'}.weight",
}
