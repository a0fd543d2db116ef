"""Turns prompts into the features that the UNet attends to."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ..device import Place
from ..network.text_encoder import TextEncoder
from .tokens import split_into_chunks


def encode_prompts(encoder: TextEncoder, prompts: Sequence[str], place: Place | None = None) -> list[Tensor]:
    """Encode several prompts in one batch. Emphasis scales the features of a prompt's tokens.

    Args:
        encoder: the model's text encoder.
        prompts: prompts of any length, with emphasis and BREAK.
        place: device and precision to compute in, if the encoder's weights are stored elsewhere.

    Returns the features of each prompt, [1, 77 * chunks, width].
    """
    by_prompt = [split_into_chunks(prompt) for prompt in prompts]
    chunks = [chunk for several in by_prompt for chunk in several]
    features: Tensor = encoder(torch.tensor([chunk.ids for chunk in chunks]), place)  # [chunks, 77, width]
    if any(weight != 1 for chunk in chunks for weight in chunk.weights):
        weights = torch.tensor([chunk.weights for chunk in chunks])
        features = _apply_emphasis(features, weights.to(features))
    return [own.flatten(0, 1).unsqueeze(0) for own in features.split([len(several) for several in by_prompt])]


def _apply_emphasis(features: Tensor, weights: Tensor) -> Tensor:
    """Scale features [chunks, 77, width] by the weights of their tokens, [chunks, 77]."""
    weighted = features * weights[..., None]
    # As in the WebUI, emphasis must not change the mean of a chunk.
    mean, now = (values.mean((1, 2), keepdim=True) for values in (features, weighted))
    return torch.where(now == 0, weighted, weighted * (mean / now))
