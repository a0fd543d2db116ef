"""Finds TAESD's decoder, the file that the WebUI itself uses for its previews."""

from pathlib import Path

from ...modelscope.checkpoints.tiny_decoder_file import read_tiny_decoder
from ...modelscope.errors import RequestError
from ...modelscope.network.tiny_decoder import TinyDecoder

FOLDER, NAMES = "VAE-taesd", ("taesd_decoder.pth", "taesd_decoder.safetensors")


def find_tiny_decoder(models: Path) -> Path:
    """Return the decoder's file in a models folder. Raises RequestError that says where to get it."""
    folder = models / FOLDER
    for path in (folder / name for name in NAMES):
        if path.is_file():
            return path
    raise RequestError(
        f"TAESD's decoder is not in {folder}. Download {NAMES[0]} from https://github.com/madebyollin/taesd and put it "
        "there, or choose the full decoder."
    )


def load_tiny_decoder(models: Path) -> TinyDecoder:
    """Return the decoder in a models folder. Raises ModelError, RequestError."""
    return read_tiny_decoder(find_tiny_decoder(models))
