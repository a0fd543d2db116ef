"""The three parts of a model, and how to recognize one by the names of its weights, whatever tool wrote the file."""

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
    """Description of a part of the model.

    Args:
        title: The part's name in messages.
        file: The field of FilesConfig that holds its file's name.
        folder: Its folder in diffusers' layout.
        stems: Names of its files in that folder, without extensions.
        mark: A weight that only this part has, as the original and as diffusers name it.
        names: Returns the translation of its weights' names into diffusers'.
        build: Returns its module.
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
    r"model\.diffusion_model\.": "a Stable Diffusion checkpoint, which makes images, not videos",
    r"^down_blocks\.": "the network of an image model",
}
"""Patterns in weights' names that identify other kinds of model, the most certain first."""


class PartFormat(NamedTuple):
    """Naming scheme of a part's weights in a file.

    prefix: the start of all names; by_diffusers: whether the names are diffusers' rather than the original's.
    """

    prefix: str
    by_diffusers: bool


def detect_format(part: Part, names: Iterable[str]) -> PartFormat | None:
    """Return how a file whose weights have these names stores a part; None if the part is not in it."""
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
    """Return a part's tensors under the original's names; tensors that do not belong to it keep their names.

    Args:
        part: The part to select.
        tensors: All tensors in the part's files, by name.
        expected: Tensors under the original's names, of which only the shapes are used.
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
    """Return the tensors of a CLIP file that are used: without the image tower, projections and last block."""
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
    """Say what a file with these names holds instead of the wanted part, as the end of an error's sentence.

    The text is empty if the file holds the part, or nothing that is recognized.
    """
    listed = list(names)
    if not detect_format(UNET, listed) and (kind := _recognize_other(listed)):
        return f"looks like {kind}. It contains no part of a ModelScope model."
    if detect_format(wanted, listed):
        return ""
    parts = [part.title for part in PARTS if detect_format(part, listed)]
    if parts:
        return f"holds the {' and the '.join(parts)}, not the {wanted.title}. Put the file of the {wanted.title} there."
    return ""


def _recognize_other(names: list[str]) -> str:
    return next((kind for sign, kind in _OTHERS.items() if any(re.search(sign, name) for name in names)), "")
