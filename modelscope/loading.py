"""A model folder in the original layout as modules, without a second copy of any weight in memory."""

import os
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

from .autoencoder import Autoencoder
from .checkpoint import read_tensors
from .config import CONFIGURATION, ModelConfig, TextConfig, read_config
from .errors import ModelError, first_line, memory_errors
from .placement import free_unused
from .text_encoder import TextEncoder
from .unet3d import UNet3D
from .weights import Place, assign, resident

AUTOENCODER_PREFIX = "first_stage_model."
SHOWN_KEYS = 4
"""How many keys an error lists."""

Module = TypeVar("Module", bound=nn.Module)


@dataclass(frozen=True)
class Model:
    """A loaded model: three modules in eval mode whose weights rest in main memory, and where they shall compute."""

    config: ModelConfig
    text_encoder: TextEncoder
    unet: UNet3D
    autoencoder: Autoencoder
    place: Place
    vae_place: Place
    _stays: ExitStack = field(default_factory=ExitStack, repr=False, compare=False)

    def stay(self, *, everything: bool) -> None:
        """Let the UNet's weights, or all, be where they compute until they `leave`. May run out of memory."""
        self.leave()
        self._stays.enter_context(resident(self.unet, self.place))
        if everything:
            self._stays.enter_context(resident(self.text_encoder, self.place))
            self._stays.enter_context(resident(self.autoencoder, self.vae_place))

    def leave(self) -> None:
        """All weights rest in main memory again."""
        self._stays.close()
        for place in (self.place, self.vae_place):
            free_unused(place.device)


def load_model(folder: Path, place: Place, vae_place: Place | None = None) -> Model:
    """Load all three parts. vae_place: where the autoencoder computes, if elsewhere than the others.

    Raises ModelError that names the folder or file and the remedy, or OutOfMemory.
    """
    with memory_errors("the model's weights", "Close other programs."):
        config = read_config(_checked_folder(folder))
        files = config.files
        clip, unet, vae = (
            find_weights(folder, name) for name in (files.ckpt_clip, files.ckpt_unet, files.ckpt_autoencoder)
        )
        return Model(
            config=config,
            text_encoder=load_part(lambda: TextEncoder(config.text), clip, text_tower(read_tensors(clip), config.text)),
            unet=load_part(lambda: UNet3D(config.unet), unet, read_tensors(unet)),
            autoencoder=load_part(lambda: Autoencoder(config.autoencoder), vae, first_stage(read_tensors(vae))),
            place=place,
            vae_place=vae_place or place,
        )


def outline(config: ModelConfig, place: Place, vae_place: Place) -> Model:
    """The model's shapes without its weights."""
    with torch.device("meta"):
        parts = TextEncoder(config.text), UNet3D(config.unet), Autoencoder(config.autoencoder)
    return Model(config, *parts, place, vae_place)


def _checked_folder(folder: Path) -> Path:
    try:
        os.listdir(folder)
    except FileNotFoundError as error:
        raise ModelError(
            f"{folder}: there is no such folder. Put the model's files there or choose another."
        ) from error
    except NotADirectoryError as error:
        raise ModelError(f"{folder}: is a file. Choose the folder that holds the model's files.") from error
    except OSError as error:
        raise ModelError(f"{folder}: cannot be read ({error.strerror}). Choose a folder that you may read.") from error
    return folder


def find_weights(folder: Path, name: str) -> Path:
    """The .safetensors twin of the configured file, or that file itself. Raises ModelError."""
    if not _is_inside(folder, name):
        raise ModelError(
            f"{folder}: the configuration names {name!r}, which is outside this folder. Put the file into it and "
            f"delete {CONFIGURATION}, or name the file there."
        )
    path = folder / name
    for candidate in (path.with_suffix(".safetensors"), path):
        if os.path.isfile(candidate):  # noqa: PTH113 - false for what cannot be looked at, too
            return candidate
    present = ", ".join(sorted(os.listdir(folder))[:8]) or "nothing"
    raise ModelError(f"{path}: is missing (the folder holds {present}). Download it into this folder.")


def _is_inside(folder: Path, name: str) -> bool:
    root = os.path.abspath(folder)
    try:
        return bool(name) and os.path.commonpath([root, os.path.abspath(folder / name)]) == root
    except ValueError:
        # Another drive.
        return False


def text_tower(tensors: dict[str, Tensor], config: TextConfig) -> dict[str, Tensor]:
    """The part of a CLIP file that is used: not the image tower, the projections or the last block."""
    last_block = f"transformer.resblocks.{config.layers - 1}."
    unused = ("visual.", "text_projection", "logit_scale", "attn_mask", last_block)
    return {name: tensor for name, tensor in tensors.items() if not name.startswith(unused)}


def first_stage(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The autoencoder inside a checkpoint of a whole Stable Diffusion; a file of its own keys is taken as it is."""
    inside = {n.partition(AUTOENCODER_PREFIX)[2]: t for n, t in tensors.items() if AUTOENCODER_PREFIX in n}
    return inside or tensors


def load_part(build: Callable[[], Module], path: Path, tensors: dict[str, Tensor]) -> Module:
    """Build a module without memory and give it the file's tensors. Raises ModelError on any mismatch."""
    try:
        with torch.device("meta"):
            module = build()
    except (ArithmeticError, AssertionError, LookupError, RuntimeError, ValueError) as error:
        raise ModelError(
            f"{path.with_name(CONFIGURATION)}: describes a network that cannot be built ({first_line(error)}). "
            "Delete it to use the 1.7B's."
        ) from error
    _check_match(path, type(module).__name__, module.state_dict(), tensors)
    assign(module, tensors)
    return module.eval().requires_grad_(requires_grad=False)


def _check_match(path: Path, part: str, expected: dict[str, Tensor], found: dict[str, Tensor]) -> None:
    common = {name: tensor for name, tensor in found.items() if name in expected}
    problems = {
        "missing": [name for name in expected if name not in found],
        "unexpected": [name for name in found if name not in expected],
        "of another shape": [
            f"{name} {list(tensor.shape)} instead of {list(expected[name].shape)}"
            for name, tensor in common.items()
            if tensor.shape != expected[name].shape
        ],
        "without numbers": [name for name, x in common.items() if x.is_meta or not x.is_floating_point()],
    }
    said = [f"{len(names)} {kind} ({_some(names)})" for kind, names in problems.items() if names]
    if said:
        raise ModelError(
            f"{path}: does not fit the {part} that the configuration describes: of {len(expected)} tensors "
            f"{'; '.join(said)}. It belongs to another model, or to another {CONFIGURATION}."
        )


def _some(names: list[str]) -> str:
    return ", ".join(names[:SHOWN_KEYS]) + (", …" if len(names) > SHOWN_KEYS else "")
