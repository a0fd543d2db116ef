"""Finds the weights that LoRA files refer to by the names of modules, in every known naming scheme."""

from collections.abc import Iterator
from typing import Literal, NamedTuple

from ..checkpoints.diffusers_keys import TEXT_PREFIX, text_names, unet_name
from ..model import Model
from ..network.text_encoder import TextEncoder
from ..network.unet3d import UNet3D

Network = Literal["unet", "text"]
COND_PROJ = "time_embedding.cond_proj"
"""T2V-Turbo's projection of the guidance scale, whose base weights are in no file."""
SCALE_DIM = 256
"""Number of sinusoids that the projection takes."""

_ORDER = (
    "conv_in", "time_embedding", "transformer_in", "down_blocks", "up_blocks", "mid_block", "conv_out",
    "resnets", "temp_convs", "attentions", "temp_attentions", "downsamplers", "upsamplers",
    "linear_1", "cond_proj", "linear_2",
    "conv1", "time_emb_proj", "conv2", "conv3", "conv4", "conv_shortcut", "conv",
    "proj_in", "transformer_blocks", "proj_out", "attn1", "attn2", "ff",
    "to_q", "to_k", "to_v", "to_out", "net", "proj",
    "encoder", "layers", "self_attn", "mlp", "k_proj", "v_proj", "q_proj", "out_proj", "fc1", "fc2",
)  # fmt: skip
"""The order in which diffusers' and transformers' networks create their modules; lists without names follow it."""
_RANK = {name: rank for rank, name in enumerate(_ORDER)}
_ORIGINAL = {
    "encoder.layers.": "resblocks.",
    ".self_attn.": ".attn.",
    ".mlp.fc1": ".mlp.c_fc",
    ".mlp.fc2": ".mlp.c_proj",
}


class Target(NamedTuple):
    """A weight to which a LoRA can add something.

    Args:
        network: The network that has the weight.
        weight: The weight's name in the network; empty for COND_PROJ.
        shape: Shape of the weight, or of the third of it that is meant.
        third: Index of the third of the weight's rows that is meant; None for all rows.
    """

    network: Network
    weight: str
    shape: tuple[int, ...]
    third: int | None = None


class Targets:
    """All targets of a model.

    listed: for each network, its targets by diffusers' names of modules (without "unet." and the like), in diffusers'
    order.
    """

    def __init__(self, model: Model) -> None:
        unet, text = dict(_list_unet(model.unet)), dict(_list_text(model.text_encoder))
        self.listed: dict[Network, dict[str, Target]] = {"unet": _sort(unet), "text": _sort(text)}
        self._original = {target.weight.removesuffix(".weight"): target for target in unet.values() if target.weight}
        self._text = {_to_original(name): target for name, target in text.items()} | text
        self._flat = {f"lora_unet_{_flatten(name)}": target for name, target in unet.items()} | {
            f"lora_te_text_model_{_flatten(name)}": target for name, target in text.items()
        }

    def find(self, module: str) -> Target | None:
        """Return the target that a file means by a module's name, or None if the model has no such module."""
        unet, rest = self.listed["unet"], module.removeprefix("base_model.model.").removeprefix("unet.")
        own = rest.removeprefix("text_encoder.").removeprefix("cond_stage_model.").removeprefix("transformer.")
        own = own.removeprefix(TEXT_PREFIX)
        return unet.get(rest) or self._original.get(rest) or self._text.get(own) or self._flat.get(module)


def _flatten(name: str) -> str:
    return name.replace(".", "_")


def _to_original(name: str) -> str:
    for theirs, ours in _ORIGINAL.items():
        name = name.replace(theirs, ours)
    return name


def _list_unet(unet: UNet3D) -> Iterator[tuple[str, Target]]:
    for name, tensor in unet.named_parameters():
        if name.endswith(".weight") and tensor.ndim > 1:
            yield unet_name(name, unet.config).removesuffix(".weight"), Target("unet", name, tuple(tensor.shape))
    yield COND_PROJ, Target("unet", "", (unet.config.dim, SCALE_DIM))


def _list_text(encoder: TextEncoder) -> Iterator[tuple[str, Target]]:
    for name, tensor in encoder.transformer.named_parameters(prefix="transformer"):
        if name.endswith("weight") and tensor.ndim > 1:
            theirs = text_names(name)
            shape = (tensor.shape[0] // len(theirs), *tensor.shape[1:])
            for third, one in enumerate(theirs):
                module = one.removeprefix(TEXT_PREFIX).removesuffix(".weight")
                yield module, Target("text", name, shape, third if len(theirs) > 1 else None)


def _sort(targets: dict[str, Target]) -> dict[str, Target]:
    """Sort targets in the order in which diffusers creates its modules."""
    return {name: targets[name] for name in sorted(targets, key=_position)}


def _position(name: str) -> tuple[int, ...]:
    return tuple(int(word) if word.isdigit() else _RANK[word] for word in name.split("."))
