"""Translation of the original's names of weights into diffusers' names, for each part.

Only this direction is written down; the other one is the table read backwards. Values differ in two ways: diffusers has
matrices where the original has 1x1 convolutions, and three matrices where the text tower has one that stacks them.
"""

import re
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from ..config import AutoencoderConfig, ModelConfig, UNetConfig

Names = Callable[[str], tuple[str, ...]]
"""Maps one of the original's names to one or three of diffusers' names; three share the rows of one tensor equally."""

_UNET_ENDS = {
    "time_embed.0": "time_embedding.linear_1",
    "time_embed.2": "time_embedding.linear_2",
    "input_blocks.0.0": "conv_in",
    "input_blocks.0.1": "transformer_in",
    "out.0": "conv_norm_out",
    "out.2": "conv_out",
}
_RES_BLOCK = {
    "in_layers.0": "norm1",
    "in_layers.2": "conv1",
    "emb_layers.1": "time_emb_proj",
    "out_layers.0": "norm2",
    "out_layers.3": "conv2",
    "skip_connection": "conv_shortcut",
}
_TRANSFORMERS = {"1": "attentions", "2": "temp_attentions"}
_MIDDLE = {"0": "0", "3": "1", "1": "0", "2": "0"}
"""Maps a layer's position in the middle block to its position among the layers of its kind."""

_VAE_ATTENTION = {"norm": "group_norm", "q": "to_q", "k": "to_k", "v": "to_v", "proj_out": "to_out.0"}
_NEW_VAE_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
"""Maps the names of diffusers before 0.18 to today's names."""

_TEXT_ENDS = {
    "positional_embedding": "embeddings.position_embedding.weight",
    "token_embedding.weight": "embeddings.token_embedding.weight",
    "ln_final.weight": "final_layer_norm.weight",
    "ln_final.bias": "final_layer_norm.bias",
}
_TEXT_BLOCK = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
    "attn.out_proj": "self_attn.out_proj",
}
TEXT_PREFIX = "text_model."
"""Prefix of the text tower's names in files; transformers 5 leaves it out."""

_MATRIX = re.compile(r"\.(proj_in|proj_out|to_q|to_k|to_v|to_out\.0)\.weight$")
"""Pattern for names of weights that are matrices in diffusers, whatever they are in the original."""


def unet_name(name: str, config: UNetConfig) -> str:
    """Return diffusers' name for a weight or a module of UNet3D."""
    for ours, theirs in _UNET_ENDS.items():
        if name == ours or name.startswith(ours + "."):
            return theirs + name[len(ours) :]
    side, number, rest = name.split(".", 2)
    if side == "middle_block":
        return f"mid_block.{_layer(number, _MIDDLE[number], rest)}"
    level, position = divmod(int(number) - (side == "input_blocks"), config.num_res_blocks + 1)
    block = f"{'down' if side == 'input_blocks' else 'up'}_blocks.{level}"
    if rest == "op" or rest.startswith("op."):
        return f"{block}.downsamplers.0.conv{rest[2:]}"
    part, rest = rest.split(".", 1)
    if rest == "conv" or rest.startswith("conv."):
        return f"{block}.upsamplers.0.{rest}"
    return f"{block}.{_layer(part, str(position), rest)}"


def _layer(part: str, position: str, rest: str) -> str:
    """Return diffusers' name for a layer.

    part: the layer's place in the block; position: its place among the layers of its kind; rest: the name within it.
    """
    if part in _TRANSFORMERS:
        return f"{_TRANSFORMERS[part]}.{position}.{rest}"
    if rest.startswith("temopral_conv."):
        return f"temp_convs.{position}.{rest.partition('.')[2]}"
    return f"resnets.{position}.{_replace_start(rest, _RES_BLOCK)}"


def _replace_start(name: str, table: Mapping[str, str]) -> str:
    """Return a name with its prefix (whole words between dots) replaced. Raises KeyError if the table has none."""
    for ours, theirs in table.items():
        if name == ours or name.startswith(ours + "."):
            return theirs + name[len(ours) :]
    raise KeyError(name)


def vae_name(name: str, config: AutoencoderConfig) -> str:
    """Return diffusers' name for a weight of Autoencoder."""
    attention = re.fullmatch(r"(encoder|decoder)\.mid\.attn_1\.(.+)", name)
    if attention:
        return f"{attention[1]}.mid_block.attentions.0.{_replace_start(attention[2], _VAE_ATTENTION)}"
    middle = re.fullmatch(r"(encoder|decoder)\.mid\.block_(\d)\.(.+)", name)
    if middle:
        return f"{middle[1]}.mid_block.resnets.{int(middle[2]) - 1}.{middle[3]}"
    level = re.fullmatch(r"(encoder\.down|decoder\.up)\.(\d+)\.(block\.\d+|downsample|upsample)\.(.+)", name)
    if not level:
        return re.sub(r"(encoder|decoder)\.norm_out", r"\1.conv_norm_out", name)
    side, number, layer, rest = level.groups()
    index = int(number) if side == "encoder.down" else len(config.ch_mult) - 1 - int(number)
    if layer.startswith("block."):
        rest = re.sub(r"^nin_shortcut", "conv_shortcut", rest)
        return f"{side}_blocks.{index}.resnets.{layer.partition('.')[2]}.{rest}"
    return f"{side}_blocks.{index}.{layer}rs.0.{rest}"


def text_names(name: str) -> tuple[str, ...]:
    """Return diffusers' names for a weight of TextEncoder, one or three."""
    if name in _TEXT_ENDS:
        return (TEXT_PREFIX + _TEXT_ENDS[name],)
    number, rest = name.removeprefix("transformer.resblocks.").split(".", 1)
    block = f"{TEXT_PREFIX}encoder.layers.{number}"
    fused = re.fullmatch(r"attn\.in_proj_(weight|bias)", rest)
    if fused:
        return tuple(f"{block}.self_attn.{kind}_proj.{fused[1]}" for kind in "qkv")
    return (f"{block}.{_replace_start(rest, _TEXT_BLOCK)}",)


def unet_names(config: ModelConfig) -> Names:
    """Return a function that translates the names of the UNet's weights."""
    return lambda name: (unet_name(name, config.unet),)


def vae_names(config: ModelConfig) -> Names:
    """Return a function that translates the names of the autoencoder's weights."""
    return lambda name: (vae_name(name, config.autoencoder),)


def from_diffusers(tensors: Mapping[str, Tensor], expected: Mapping[str, Tensor], names: Names) -> dict[str, Tensor]:
    """Return tensors under the original's names and in its shapes; those without a counterpart keep their names.

    Args:
        tensors: Tensors under diffusers' names.
        expected: Tensors under the original's names, of which only the shapes are used.
        names: Translates one of the original's names.
    """
    left = {_modernize(name): tensor for name, tensor in tensors.items() if not name.endswith("position_ids")}
    found = {}
    for name, shaped in expected.items():
        theirs = names(name)
        if all(one in left for one in theirs):
            whole = _join([left.pop(one) for one in theirs], shaped)
            found[name] = whole.view(shaped.shape) if _differ_by_ones(whole, shaped) else whole
    return {**found, **left}


def _join(parts: list[Tensor], whole: Tensor) -> Tensor:
    """Return the rows of all parts as one tensor, or a part that does not fit, if there is one."""
    shape = (whole.shape[0] // len(parts), *whole.shape[1:])
    odd = [part for part in parts if part.shape != shape or not part.is_floating_point()]
    if len(parts) == 1 or odd:
        return (odd or parts)[0]
    return torch.cat(parts)


def _differ_by_ones(one: Tensor, other: Tensor) -> bool:
    rank = max(one.ndim, other.ndim)
    first, second = (tuple(x.shape) + (1,) * (rank - x.ndim) for x in (one, other))
    return first == second


def to_diffusers(tensors: Mapping[str, Tensor], names: Names) -> dict[str, Tensor]:
    """Return tensors under diffusers' names and in its shapes, as views of the given tensors."""
    found = {}
    for name, tensor in tensors.items():
        theirs = names(name)
        for one, part in zip(theirs, tensor.chunk(len(theirs)), strict=True):
            found[one] = part.flatten(1) if _MATRIX.search(one) else part
    return found


def _modernize(name: str) -> str:
    """Return the name that today's diffusers uses in files."""
    attention = re.fullmatch(r"(.+\.mid_block\.attentions\.0\.)(query|key|value|proj_attn)(\..+)", name)
    if attention:
        return attention[1] + _NEW_VAE_ATTENTION[attention[2]] + attention[3]
    return TEXT_PREFIX + name if name.startswith(("embeddings.", "encoder.layers.", "final_layer_norm.")) else name
