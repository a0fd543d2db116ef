"""TAESD's decoder beside diffusers', and its file in each layout."""

from pathlib import Path

import pytest
import torch
from diffusers.models.autoencoders.autoencoder_tiny import AutoencoderTiny
from safetensors.torch import save_file

from sd_t2v.modelscope.checkpoints.tiny_decoder_file import read_tiny_decoder
from sd_t2v.modelscope.errors import ModelError
from sd_t2v.modelscope.network.tiny_decoder import TinyDecoder
from sd_t2v.tests.helpers.taesd import own_layout

DIFFUSERS = "decoder.layers."


@pytest.fixture(scope="module")
def theirs() -> AutoencoderTiny:
    torch.manual_seed(0)
    return AutoencoderTiny().eval().requires_grad_(requires_grad=False)


@pytest.mark.parametrize("layout", ["own", "diffusers"])
def test_equals_diffusers(layout: str, theirs: AutoencoderTiny, tmp_path: Path) -> None:
    path = tmp_path / ("taesd_decoder.pth" if layout == "own" else "taesd_decoder.safetensors")
    if layout == "own":
        torch.save(own_layout(theirs.state_dict(), DIFFUSERS), path)
    else:
        save_file(theirs.state_dict(), path)
    latents = 4 * torch.randn(2, 4, 6, 8, generator=torch.Generator().manual_seed(1))
    expected = theirs.decode(latents).sample * 0.5 + 0.5
    found = read_tiny_decoder(path).latents_to_frames(latents)
    assert found.shape == (2, 3, 48, 64)
    # Random weights hardly leave 0..1; what does is cut.
    assert float((found - expected.clamp(0, 1)).abs().max()) < 1e-5
    assert float(found.std()) > 0.01


def test_another_file_is_refused(theirs: AutoencoderTiny, tmp_path: Path) -> None:
    state = own_layout(theirs.state_dict(), DIFFUSERS)
    for changed in (
        {name: x for name, x in state.items() if name != "19.bias"},
        state | {"1.weight": torch.zeros(64, 16, 3, 3)},
        state | {"1.weight": torch.zeros(64, 4, 3, 3, dtype=torch.int8)},
        {"decoder.conv_in.weight": torch.zeros(4, 4, 3, 3)},
    ):
        torch.save(changed, tmp_path / "x.pth")
        with pytest.raises(ModelError, match=r"x\.pth: is not TAESD's decoder .*madebyollin"):
            read_tiny_decoder(tmp_path / "x.pth")


def test_names_are_those_of_the_published_file() -> None:
    names = own_layout(TinyDecoder().state_dict())
    assert {
        "1.weight",
        "3.conv.0.weight",
        "5.conv.4.bias",
        "7.weight",
        "12.weight",
        "17.weight",
        "18.conv.2.bias",
        "19.weight",
    } <= names.keys()
    assert not {"7.bias", "0.weight", "2.weight"} & names.keys()
