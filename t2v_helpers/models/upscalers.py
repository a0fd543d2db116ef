"""Upscalers for hosts that have none of their own: the WebUI's files, run by spandrel, which knows their networks."""

import functools
import importlib.util
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ...modelscope.checkpoints.weight_file import read_state
from ...modelscope.errors import ModelError, first_line

FOLDERS = ("ESRGAN", "RealESRGAN", "BSRGAN", "SwinIR", "DAT", "ScuNET")
"""The WebUI's folders of upscalers, in a models folder."""
SUFFIXES = (".pth", ".safetensors")
TILE, MARGIN = 256, 16
"""Side of the pieces that are enlarged at once, and of what each sees around it, in pixels: memory does not grow."""
LARGEST_SCALE = 8
Upscale = Callable[[Image.Image, int, int], Image.Image]


def find_upscalers(models: Path, device: torch.device) -> dict[str, Upscale]:
    """Return the upscalers in a models folder by name; none without spandrel. A file is read when it is used."""
    if importlib.util.find_spec("spandrel") is None:
        return {}
    paths = sorted(path for name in FOLDERS for path in _files(models / name))
    return {path.stem: functools.partial(_upscale, path, device) for path in paths}


def _files(folder: Path) -> list[Path]:
    try:
        return [path for path in folder.iterdir() if path.suffix in SUFFIXES and path.is_file()]
    except OSError:
        return []


def _upscale(path: Path, device: torch.device, picture: Image.Image, width: int, height: int) -> Image.Image:  # noqa: ARG001 - an upscaler has its own scale
    network = _load(path, device)
    pixels = torch.from_numpy(np.array(picture.convert("RGB"))).to(device).permute(2, 0, 1)[None].float() / 255
    enlarged = enlarge_in_tiles(network, pixels, network.scale)
    return Image.fromarray((enlarged[0].permute(1, 2, 0).clamp(0, 1) * 255).round().byte().cpu().numpy())


@functools.lru_cache(maxsize=1)
def _load(path: Path, device: torch.device) -> Any:
    """Return the network of a file. Its weights are read by our own reader: no file runs code. Raises ModelError."""
    try:
        import spandrel
    except (ImportError, RuntimeError, OSError) as error:
        raise ModelError(
            f"{path.name} cannot be used: spandrel, which knows its network, does not start here "
            f"({first_line(error)}). Choose the upscaler Latent or Lanczos."
        ) from error
    try:
        network = spandrel.ModelLoader(device=device).load_from_state_dict(read_state(path))
    except ModelError:
        raise
    except Exception as error:
        raise ModelError(
            f"{path}: is no upscaler that spandrel knows ({first_line(error)}). Choose another upscaler."
        ) from error
    if not isinstance(network, spandrel.ImageModelDescriptor) or not 1 <= network.scale <= LARGEST_SCALE:
        raise ModelError(f"{path}: is no upscaler for pictures. Choose another upscaler.")
    return network.eval()


@torch.no_grad()
def enlarge_in_tiles(network: Callable[[Tensor], Tensor], pixels: Tensor, scale: int) -> Tensor:
    """Return a picture [1, 3, h, w], enlarged tile by tile: [1, 3, h scale, w scale] in float32.

    network: enlarges a picture to `scale` times its sides.
    """
    _, _, height, width = pixels.shape
    result = pixels.new_empty(1, 3, height * scale, width * scale)
    for top, bottom in _pieces(height):
        for left, right in _pieces(width):
            above, before = min(top, MARGIN), min(left, MARGIN)
            seen = pixels[:, :, top - above : bottom + MARGIN, left - before : right + MARGIN]
            enlarged = network(seen)[:, :, above * scale :, before * scale :]
            rows, columns = slice(top * scale, bottom * scale), slice(left * scale, right * scale)
            result[:, :, rows, columns] = enlarged[:, :, : (bottom - top) * scale, : (right - left) * scale]
    return result


def _pieces(length: int) -> Iterator[tuple[int, int]]:
    """Yield the begin and the end of each piece of a side."""
    for begin in range(0, length, TILE):
        yield begin, min(begin + TILE, length)
