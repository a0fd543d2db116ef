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
from ..host import Upscale

FOLDERS = ("ESRGAN", "RealESRGAN", "BSRGAN", "SwinIR", "DAT", "ScuNET")
"""The WebUI's folders of upscalers, in a models folder."""
SUFFIXES = (".pth", ".safetensors")
TILE, MARGIN = 256, 16
"""Side of the pieces that are enlarged at once, and of what each sees around it, in pixels: memory does not grow."""
LARGEST_SCALE = 8


def find_upscalers(models: Path, find_device: Callable[[], torch.device]) -> dict[str, Upscale]:
    """Return the upscalers in a models folder by name; none without spandrel. A file is read when it is used.

    find_device: returns the device to compute on; not asked before an upscaler is used.
    """
    if importlib.util.find_spec("spandrel") is None:
        return {}
    paths = sorted(path for name in FOLDERS for path in _files(models / name))
    return {path.stem: FileUpscaler(path, find_device) for path in paths}


def _files(folder: Path) -> list[Path]:
    try:
        return [path for path in folder.iterdir() if path.suffix in SUFFIXES and path.is_file()]
    except OSError:
        return []


class FileUpscaler:
    """An upscaler in a file. It is read when it is first used, and leaves the device together with this object."""

    def __init__(self, path: Path, find_device: Callable[[], torch.device]) -> None:
        self._path, self._find_device = path, find_device

    def __call__(self, picture: Image.Image, width: int, height: int) -> Image.Image:  # noqa: ARG002 - it has a scale of its own
        """Return a picture, enlarged by the network's own scale. Raises ModelError if the file is no upscaler."""
        network = self._network
        pixels = torch.from_numpy(np.array(picture.convert("RGB"))).to(self._device).permute(2, 0, 1)[None]
        enlarged = enlarge_in_tiles(network, pixels.float() / 255, network.scale)
        return Image.fromarray((enlarged[0].permute(1, 2, 0).clamp(0, 1) * 255).round().byte().cpu().numpy())

    @functools.cached_property
    def _device(self) -> torch.device:
        return self._find_device()

    @functools.cached_property
    def _network(self) -> Any:
        """The network, whose weights our own reader reads: no file runs code."""
        path = self._path
        try:
            import spandrel
        except (ImportError, RuntimeError, OSError) as error:
            raise ModelError(
                f"{path.name} cannot be used: spandrel, which knows its network, does not start here "
                f"({first_line(error)}). Choose the upscaler Latent or Lanczos."
            ) from error
        state = read_state(path)
        try:
            network = spandrel.ModelLoader(device=self._device).load_from_state_dict(state)
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
