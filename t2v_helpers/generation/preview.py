"""Turns latents into a small picture while a video is being made."""

import functools
import math

import torch
from PIL import Image
from torch import Tensor

from ...modelscope.errors import ModelError, RequestError, first_line
from ...modelscope.escape import logger
from ...modelscope.network.autoencoder import to_uint8
from ...modelscope.network.tiny_decoder import TinyDecoder
from ..host import Host
from ..models.tiny_decoder import load_tiny_decoder
from ..settings import CONTACT_SHEET, PREVIEW, PREVIEW_DECODER, TAESD_PREVIEW

log = logger(__name__)
# Least-squares fit of RGB (-1..1) to latents of Stable Diffusion 1.x's autoencoder, which this model shares, as
# published by the authors of several previews.
LATENT_RGB = ((0.298, 0.207, 0.208), (0.187, 0.286, 0.173), (-0.158, 0.189, 0.264), (-0.184, -0.271, -0.473))
MOST_FRAMES = 12
GREY = 127
SMALLEST_SIDE = 256
"""Minimum length in pixels of a preview's shorter side: browsers would blur a smaller one."""
LARGEST_SIDE = 1024
"""Maximum length in pixels of a preview's sides: it is sent to the page again and again."""


class Previews:
    """The previews of a run, as the settings want them."""

    def __init__(self, host: Host) -> None:
        self._host = host

    def show(self, latents: Tensor) -> None:
        """Show latents [1, 4, f, h, w] on the host's page."""
        shows = self._host.setting(PREVIEW)
        try:
            image = preview_image(latents, shows, self._decoder)
        except (MemoryError, RuntimeError) as error:
            if self._decoder is None:
                raise
            log.warning("TAESD cannot make previews (%s). They are made from colours instead.", first_line(error))
            self._decoder = None
            image = preview_image(latents, shows)
        self._host.show_preview(image)

    @functools.cached_property
    def _decoder(self) -> TinyDecoder | None:
        """TAESD's decoder if the settings want it and it can be read: a preview is not worth a run."""
        if self._host.setting(PREVIEW_DECODER) != TAESD_PREVIEW:
            return None
        try:
            return load_tiny_decoder(self._host.models_folder())
        except (ModelError, RequestError, OSError) as error:
            log.warning("Previews show plain colours. %s", error)
            return None


def preview_image(latents: Tensor, shows: str, decoder: TinyDecoder | None = None) -> Image.Image:
    """Return latents [1, 4, f, h, w] as an RGB image: a contact sheet of at most 12 frames, or the middle frame."""
    count = latents.shape[2]
    sheet = shows == CONTACT_SHEET
    chosen = (
        torch.linspace(0, count - 1, min(count, MOST_FRAMES)).round().long() if sheet else torch.tensor([count // 2])
    )
    clip = latents[0].transpose(0, 1)[chosen.to(latents.device)]
    frames = _decode(clip, decoder) if decoder else _colour(clip.float().cpu())
    image = Image.fromarray(_tile(frames).numpy())
    image.thumbnail((LARGEST_SIDE, LARGEST_SIDE))
    scale = max(1, math.ceil(SMALLEST_SIDE / min(image.size)))
    return image.resize((image.width * scale, image.height * scale), Image.Resampling.BILINEAR)


def _decode(clip: Tensor, decoder: TinyDecoder) -> Tensor:
    """Decode latents [f, 4, h, w] where they are, frame by frame: RGB bytes [f, 8 h, 8 w, 3] on the CPU."""
    decoder.to(clip.device, clip.dtype)
    frames = [to_uint8(decoder.latents_to_frames(latents[None]).float().nan_to_num()).cpu() for latents in clip]
    return torch.cat(frames)


def _colour(clip: Tensor) -> Tensor:
    """Turn latents [f, 4, h, w] into RGB bytes [f, h, w, 3] by a colour for each of their pixels."""
    colours = torch.einsum("fchw,cr->fhwr", clip, torch.tensor(LATENT_RGB))
    return ((colours + 1) * 127.5).nan_to_num().clamp(0, 255).to(torch.uint8)


def _tile(frames: Tensor) -> Tensor:
    """Arrange frames [f, h, w, 3] row by row in a roughly square grid."""
    count, height, width, _ = frames.shape
    columns = math.ceil(math.sqrt(count))
    rows = math.ceil(count / columns)
    grid = frames.new_full((rows * columns, height, width, 3), GREY)
    grid[:count] = frames
    return grid.view(rows, columns, height, width, 3).transpose(1, 2).reshape(rows * height, columns * width, 3)
