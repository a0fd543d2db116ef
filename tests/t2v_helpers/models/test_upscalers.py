"""Upscalers from the WebUI's files: a network that spandrel knows, written as people have it, enlarges a picture."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from sd_t2v.benchmarks.torchvision_import import import_torchvision
from sd_t2v.modelscope.errors import ModelError
from sd_t2v.t2v_helpers.models.upscalers import MARGIN, TILE, enlarge_in_tiles, find_upscalers


def on_cpu() -> torch.device:
    return torch.device("cpu")


import_torchvision()


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """A folder with a tiny ESRGAN with random weights, wrapped as its authors wrap it."""
    from spandrel.architectures.ESRGAN import RRDBNet

    torch.manual_seed(0)
    network = RRDBNet(num_filters=8, num_blocks=1, scale=2)
    (tmp_path / "ESRGAN").mkdir()
    torch.save({"params_ema": network.state_dict()}, tmp_path / "ESRGAN" / "tiny x2.pth")
    (tmp_path / "ESRGAN" / "text.pth").write_text("no weights")
    torch.save({"a": torch.zeros(3)}, tmp_path / "ESRGAN" / "other.pth")
    return tmp_path


def picture(size: tuple[int, int] = (24, 16)) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), np.uint8))


def test_a_file_enlarges_by_its_own_scale(models: Path) -> None:
    found = find_upscalers(models, on_cpu)
    assert set(found) == {"tiny x2", "text", "other"}
    assert found["tiny x2"](picture(), 30, 20).size == (48, 32)


@pytest.mark.parametrize("name", ["text", "other"])
def test_what_is_no_upscaler_is_named(name: str, models: Path) -> None:
    with pytest.raises(ModelError, match=rf"{name}\.pth"):
        find_upscalers(models, on_cpu)[name](picture(), 48, 32)


def test_a_folder_without_upscalers_has_none(tmp_path: Path) -> None:
    assert find_upscalers(tmp_path, on_cpu) == {}


def test_tiles_give_what_the_whole_gives() -> None:
    """For a network that sees no further than the margin."""
    weight = torch.rand(3, 3, 5, 5, generator=torch.Generator().manual_seed(1))

    def network(x: Tensor) -> Tensor:
        assert max(x.shape[2:]) <= TILE + 2 * MARGIN
        blurred = torch.nn.functional.conv2d(x, weight, padding=2)
        return torch.nn.functional.interpolate(blurred, scale_factor=2.0, mode="nearest")

    pixels = torch.rand(1, 3, TILE + 40, 2 * TILE + 3, generator=torch.Generator().manual_seed(2))
    whole = torch.nn.functional.conv2d(pixels, weight, padding=2)
    expected = torch.nn.functional.interpolate(whole, scale_factor=2.0, mode="nearest")
    assert torch.allclose(enlarge_in_tiles(network, pixels, 2), expected, atol=1e-4)
