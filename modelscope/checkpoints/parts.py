"""The three parts of a model, and how to know one by the names of its weights, whoever wrote the file."""

import re
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from torch import Tensor, nn

from ..config import ModelConfig
from ..network.autoencoder import Autoencoder
from ..network.text_encoder import TextEncoder
from ..network.unet3d import UNet3D
from .diffusers_keys import TEXT_PREFIX, Names, from_diffusers, text_names, unet_names, vae_names


class Part(NamedTuple):
    """What is known of a part. file: its field in FilesConfig; folder, stems: of its files in diffusers' layout.

    mark: a weight that only this part has, in the original's and in diffusers' layout.
    """

    title: str
    file: str
    folder: str
    stems: tuple[str, ...]
    mark: tuple[str, str]
    names: Callable[[ModelConfig], Names]
    build: Callable[[ModelConfig], nn.Module]


TEXT = Part(
    "text encoder",
    "ckpt_clip",
    "text_encoder",
    ("model", "pytorch_model"),
    ("ln_final.weight", "final_layer_norm.weight"),
    lambda _: text_names,
    lambda config: TextEncoder(config.text),
)
UNET = Part(
    "UNet",
    "ckpt_unet",
    "unet",
    ("diffusion_pytorch_model",),
    ("input_blocks.0.1.norm.weight", "transformer_in.norm.weight"),
    unet_names,
    lambda config: UNet3D(config.unet),
)
VAE = Part(
    "autoencoder",
    "ckpt_autoencoder",
    "vae",
    ("diffusion_pytorch_model",),
    ("decoder.norm_out.weight", "decoder.conv_norm_out.weight"),
    vae_names,
    lambda config: Autoencoder(config.autoencoder),
)
PARTS = (TEXT, UNET, VAE)

_OTHERS = {
    r"double_blocks\.": "a Flux model",
    r"joint_blocks\.": "a Stable Diffusion 3 model",
    r"time_stack\.": "a Stable Video Diffusion model",
    r"conditioner\.embedders\.": "an SDXL checkpoint",
    r"motion_modules\.": "an AnimateDiff motion module",
    r"control_model\.": "a ControlNet",
    r"init_attn\.": "a VideoCrafter model",
    r"lora_": "a LoRA, which belongs in the LoRA folder",
    r"model\.diffusion_model\.": "a Stable Diffusion checkpoint, which makes pictures, not videos",
    r"^down_blocks\.": "a network for pictures",
}
"""Patterns in names by which other kinds of model are recognized, the most certain first."""


class PartFormat(NamedTuple):
    """How a file names a part's weights.

    prefix: the start of all names; by_diffusers: whether they are diffusers' names, not the original's.
    """

    prefix: str
    by_diffusers: bool


def detect_format(part: Part, names: Iterable[str]) -> PartFormat | None:
    """Return how a file with these names of weights holds a part; None where it does not."""
    found = [
        PartFormat(name[: -len(mark)], by_diffusers)
        for name in names
        for mark, by_diffusers in zip(part.mark, (False, True), strict=True)
        if name == mark or name.endswith("." + mark)
    ]
    ours = [one for one in found if not one.prefix.startswith(("visual.", "vision_model."))]
    return min(ours, key=lambda one: len(one.prefix), default=None)


def select_part(
    part: Part, tensors: Mapping[str, Tensor], expected: Mapping[str, Tensor], config: ModelConfig
) -> dict[str, Tensor]:
    """Return a part's tensors under the original's names; tensors that are no part of it keep their own.

    Args:
        part: The part to select.
        tensors: All tensors in the part's files, by name.
        expected: The original's names, with tensors of its shapes.
        config: The model's configuration.
    """
    how = detect_format(part, tensors) or PartFormat("", by_diffusers=False)
    own = {name.removeprefix(how.prefix): x for name, x in tensors.items() if name.startswith(how.prefix)}
    if part is TEXT:
        own = _select_text_tower(own, config.text.layers - 1)
    if sum(detect_format(one, tensors) is not None for one in PARTS) > 1:
        own = _drop_other_parts(own, expected, part.names(config))
    return from_diffusers(own, expected, part.names(config)) if how.by_diffusers else own


def _select_text_tower(tensors: dict[str, Tensor], unused_block: int) -> dict[str, Tensor]:
    """Return what is used of a CLIP file: neither the image tower nor the projections nor the last block."""
    unused = (
        "visual.", "text_projection", "logit_scale", "attn_mask",
        f"transformer.resblocks.{unused_block}.", f"encoder.layers.{unused_block}.",
    )  # fmt: skip
    return {name: tensor for name, tensor in tensors.items() if not name.startswith(unused)}


def _drop_other_parts(own: dict[str, Tensor], expected: Mapping[str, Tensor], names: Names) -> dict[str, Tensor]:
    """Return the tensors of one part, from a file that holds several."""
    known = {*expected, *(one.removeprefix(TEXT_PREFIX) for name in expected for one in names(name))}
    begins = {name.partition(".")[0] for name in known}
    return {name: tensor for name, tensor in own.items() if name.partition(".")[0] in begins}


def describe_mismatch(names: Iterable[str], wanted: Part) -> str:
    """Return what a file with these names holds instead of a part, as the end of an error; nothing if it holds it."""
    listed = list(names)
    if not detect_format(UNET, listed) and (kind := _recognize_other(listed)):
        return f"looks like {kind}. Nothing of a ModelScope model is in it."
    if detect_format(wanted, listed):
        return ""
    parts = [part.title for part in PARTS if detect_format(part, listed)]
    if parts:
        return f"holds the {' and the '.join(parts)}, not the {wanted.title}. Put the {wanted.title}'s file there."
    return ""


def _recognize_other(names: list[str]) -> str:
    return next((kind for sign, kind in _OTHERS.items() if any(re.search(sign, name) for name in names)), "")
