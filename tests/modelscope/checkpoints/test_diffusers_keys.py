"""The original's names and diffusers', both ways, against verified maps and diffusers' own networks."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_3d_condition import UNet3DConditionModel
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel

from sd_t2v.benchmarks.rivals import diffusers_config
from sd_t2v.modelscope.checkpoints.diffusers_keys import (
    Names,
    from_diffusers,
    text_names,
    to_diffusers,
    unet_names,
    vae_names,
)
from sd_t2v.modelscope.config import AutoencoderConfig, ModelConfig, TextConfig, UNetConfig
from sd_t2v.modelscope.network.autoencoder import Autoencoder
from sd_t2v.modelscope.network.text_encoder import TextEncoder
from sd_t2v.modelscope.network.unet3d import UNet3D
from sd_t2v.tests.helpers.support import golden_json, small_model

FULL = ModelConfig()


def verified(part: str) -> dict[str, tuple[str, ...]]:
    """Our names to diffusers', as the conversion script of diffusers itself gave them."""
    table = golden_json(f"map_{part}_small")["map"]
    if part == "text":
        return {name: tuple(one for one, _ in targets) for name, targets in table.items() if targets}
    return {name: (target["diffusers"],) for name, target in table.items()}


def names_of(part: str, config: ModelConfig) -> Names:
    return {"unet": unet_names(config), "vae": vae_names(config), "text": text_names}[part]


@pytest.mark.parametrize("part", ["unet", "vae", "text"])
def test_names_follow_the_verified_maps(part: str) -> None:
    names = names_of(part, small_model().config)
    assert {name: names(name) for name in verified(part)} == verified(part)


def theirs(part: str) -> dict[str, Tensor]:
    """diffusers' own full-size networks, without their weights."""
    vae, text = AutoencoderConfig(), TextConfig()
    with torch.device("meta"):
        if part == "unet":
            return UNet3DConditionModel(**diffusers_config(UNetConfig())).state_dict()
        if part == "vae":
            return AutoencoderKL(
                down_block_types=["DownEncoderBlock2D"] * 4,
                up_block_types=["UpDecoderBlock2D"] * 4,
                block_out_channels=[vae.ch * mult for mult in vae.ch_mult],
                layers_per_block=vae.num_res_blocks,
                latent_channels=vae.z_channels,
            ).state_dict()
        config = CLIPTextConfig(
            hidden_size=text.width,
            intermediate_size=4 * text.width,
            num_attention_heads=text.heads,
            num_hidden_layers=text.layers - 1,
            projection_dim=512,
        )
        tensors = CLIPTextModel(config).state_dict()
    return {"text_model." + name.removeprefix("text_model."): tensor for name, tensor in tensors.items()}


def ours(part: str) -> dict[str, Tensor]:
    build: dict[str, Callable[[], nn.Module]] = {
        "unet": lambda: UNet3D(FULL.unet),
        "vae": lambda: Autoencoder(FULL.autoencoder),
        "text": lambda: TextEncoder(FULL.text),
    }
    with torch.device("meta"):
        return build[part]().state_dict()


def shapes(tensors: dict[str, Tensor]) -> dict[str, Any]:
    return {name: tuple(tensor.shape) for name, tensor in tensors.items() if not name.endswith("position_ids")}


@pytest.mark.parametrize(("part", "count"), [("unet", 1480), ("vae", 248), ("text", 280)])
def test_full_size_names_and_shapes_agree_without_remainder(part: str, count: int) -> None:
    names = names_of(part, FULL)
    assert len(ours(part)) == count
    assert shapes(to_diffusers(ours(part), names)) == shapes(theirs(part))
    assert shapes(from_diffusers(theirs(part), ours(part), names)) == shapes(ours(part))


@pytest.mark.parametrize("part", ["unet", "vae", "text"])
def test_there_and_back_is_the_same(part: str) -> None:
    config = small_model().config
    modules = {"unet": small_model().unet, "vae": small_model().autoencoder, "text": small_model().text_encoder}
    expected = modules[part].state_dict()
    back = from_diffusers(to_diffusers(expected, names_of(part, config)), expected, names_of(part, config))
    assert list(back) == list(expected)
    assert all(torch.equal(back[name], tensor) for name, tensor in expected.items())


def _old(name: str) -> str:
    for today, before in {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}.items():
        name = name.replace(f".{today}.", f".{before}.")
    return name


def test_old_names_are_known() -> None:
    config = small_model().config
    expected = small_model().autoencoder.state_dict()
    new = to_diffusers(expected, vae_names(config))
    renamed = {_old(name): tensor for name, tensor in new.items()}
    assert renamed.keys() != new.keys()
    back = from_diffusers(renamed, expected, vae_names(config))
    assert all(torch.equal(back[name], tensor) for name, tensor in expected.items())


def test_text_towers_without_prefix_and_with_positions() -> None:
    expected = small_model().text_encoder.state_dict()
    bare = {name.removeprefix("text_model."): x for name, x in to_diffusers(expected, text_names).items()}
    bare["embeddings.position_ids"] = torch.arange(77)
    back = from_diffusers(bare, expected, text_names)
    assert back.keys() == expected.keys()


def test_what_has_no_counterpart_keeps_its_name() -> None:
    expected = {"a": torch.zeros(2, 2, 1)}
    found = from_diffusers({"b": torch.zeros(1), "x": torch.zeros(2, 2)}, expected, lambda name: ("x",))
    assert shapes(found) == {"a": (2, 2, 1), "b": (1,)}
    wrong = from_diffusers({"x": torch.zeros(4)}, expected, lambda name: ("x",))
    assert shapes(wrong) == {"a": (4,)}
