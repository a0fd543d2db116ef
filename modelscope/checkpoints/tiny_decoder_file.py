"""Reads TAESD's decoder from a file, in its own layout or in diffusers'."""

import re
from pathlib import Path

import torch

from ..errors import ModelError
from ..network.streamable import assign
from ..network.tiny_decoder import TinyDecoder
from .load import describe_differences
from .weight_file import read_tensors

_OWN, _DIFFUSERS = re.compile(r"(\d+)\.(.+)"), re.compile(r"(?:decoder\.)?layers\.(\d+\..+)")
"""Names of weights. The project's own files count the squeezing of latents as the first layer."""


def read_tiny_decoder(path: Path) -> TinyDecoder:
    """Return the decoder with the file's weights. Raises ModelError, which names the file and the remedy."""
    with torch.device("meta"):
        decoder = TinyDecoder()
    expected = decoder.state_dict()
    found = {
        name: tensor
        for key, tensor in read_tensors(path, mapped=False).items()
        if (name := _translate(key)) in expected
    }
    if differences := describe_differences(expected, found):
        raise ModelError(
            f"{path}: is not TAESD's decoder for Stable Diffusion 1 (of {len(expected)} tensors {differences}). "
            "Download taesd_decoder.pth from https://github.com/madebyollin/taesd."
        )
    assign(decoder, found)
    return decoder.eval().requires_grad_(requires_grad=False)


def _translate(key: str) -> str:
    """Return the decoder's name for a weight; an empty one for other weights."""
    if own := _OWN.fullmatch(key):
        return f"layers.{int(own[1]) - 1}.{own[2]}"
    theirs = _DIFFUSERS.fullmatch(key)
    return f"layers.{theirs[1]}" if theirs else ""
