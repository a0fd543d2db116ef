"""Live comparisons with diffusers and with modelscope's own network, weights shared."""

import pytest
import torch
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel

from sd_t2v.benchmarks.rivals import diffusers_unet, modelscope_unet
from sd_t2v.modelscope.config import UNetConfig
from sd_t2v.modelscope.network.unet3d import UNet3D
from sd_t2v.tests.helpers.diffusers_twins import make_autoencoder
from sd_t2v.tests.helpers.support import golden, golden_json, max_error, small_model

SIZES = [(1, 3, 8, 8), (2, 2, 9, 13), (1, 1, 5, 16)]


def inputs(size: tuple[int, int, int, int], context_dim: int) -> tuple[Tensor, Tensor, Tensor]:
    b, f, h, w = size
    generator = torch.Generator().manual_seed(h * w)
    x = torch.randn(b, 4, f, h, w, generator=generator)
    return x, torch.tensor([981.0, 13.0][:b]), torch.randn(b, 77, context_dim, generator=generator)


def randomised(network: nn.Module) -> nn.Module:
    generator = torch.Generator().manual_seed(0)
    for parameter in network.parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        parameter.data = noise * parameter[0].numel() ** -0.5 if parameter.ndim > 1 else 1 + 0.1 * noise
    return network.eval()


@pytest.mark.parametrize("size", SIZES)
@torch.no_grad()
def test_unet_equals_diffusers(size: tuple[int, int, int, int]) -> None:
    unet = small_model().unet
    x, t, text = inputs(size, 32)
    theirs = diffusers_unet(unet.config, unet.state_dict())(x, t, text, return_dict=False)[0]
    assert max_error(unet(x, t, unet.text_context(text)), theirs) < 5e-5


@torch.no_grad()
def test_unet_equals_modelscope() -> None:
    config = UNetConfig(dim=32, head_dim=8, dim_mult=[1, 1, 2, 2], num_res_blocks=1)
    unet = randomised(UNet3D(config))
    assert isinstance(unet, UNet3D)
    theirs = modelscope_unet(config, unet.state_dict())
    for size in [(1, 3, 8, 8), (2, 2, 8, 16)]:
        x, t, text = inputs(size, 1024)
        ours = unet(x, t, unet.text_context(text))
        scale = max(1.0, float(ours.abs().max()))
        assert max_error(ours, theirs(x, t, text)) < 5e-5 * scale


@torch.no_grad()
def test_autoencoder_equals_diffusers() -> None:
    theirs = make_autoencoder()
    frames = torch.rand(2, 3, 40, 56, generator=torch.Generator().manual_seed(1)) * 2 - 1
    ours = small_model().autoencoder
    mean, _ = ours.encode(frames)
    assert max_error(mean, theirs.encode(frames).latent_dist.mean) < 5e-5
    assert max_error(ours.decode(mean), theirs.decode(mean).sample) < 5e-5


def transformers_state() -> dict[str, Tensor]:
    weights = golden("text_small_A.weights")
    state: dict[str, Tensor] = {}
    for key, targets in golden_json("map_text_small")["map"].items():
        for name, operation in targets:
            third = int(operation[5]) if operation.startswith("rows ") else None
            state[name] = weights[key] if third is None else weights[key].chunk(3)[third]
    return state


@torch.no_grad()
def test_text_encoder_equals_transformers() -> None:
    theirs = CLIPTextModel(
        CLIPTextConfig(
            hidden_size=32, intermediate_size=128, num_attention_heads=2, num_hidden_layers=2, hidden_act="gelu",
            projection_dim=64,
        )
    ).eval()  # fmt: skip
    wanted = theirs.state_dict()
    state = {key.removeprefix("text_model."): value for key, value in transformers_state().items()}
    theirs.load_state_dict({key: state[key.removeprefix("text_model.")] for key in wanted})
    tokens = torch.tensor([golden_json("text_small_A")["tokens"]["2"]])
    ours = small_model().text_encoder(tokens)
    assert max_error(ours, theirs(tokens).last_hidden_state) < 1e-5
