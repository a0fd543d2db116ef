"""Token chunks to the features that the UNet attends to."""

import torch
from torch import Tensor

from ..device import Place
from ..network.text_encoder import TextEncoder
from .tokens import split_into_chunks


def encode_prompt(encoder: TextEncoder, prompt: str, place: Place | None = None) -> Tensor:
    """Encode a prompt, in which emphasis scales the features of its tokens.

    Args:
        encoder: the model's.
        prompt: with emphasis and BREAK, of any length.
        place: where to compute, if the encoder's weights wait elsewhere.

    Returns features [1, 77 * chunks, width].
    """
    chunks = split_into_chunks(prompt)
    features: Tensor = encoder(torch.tensor([chunk.ids for chunk in chunks]), place)  # [chunks, 77, width]
    weights = torch.tensor([chunk.weights for chunk in chunks], device=features.device, dtype=features.dtype)
    if bool((weights != 1).any()):
        features = _apply_emphasis(features, weights)
    return features.flatten(0, 1).unsqueeze(0)


def _apply_emphasis(features: Tensor, weights: Tensor) -> Tensor:
    """Scale features [chunks, 77, width] by the weights of their tokens, [chunks, 77]."""
    weighted = features * weights[..., None]
    # As in the WebUI: emphasis must not change the mean of a chunk.
    mean, now = (values.mean((1, 2), keepdim=True) for values in (features, weighted))
    return torch.where(now == 0, weighted, weighted * (mean / now))
