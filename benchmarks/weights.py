"""Random weights, for when only sizes and finite numbers matter."""

import torch
from torch import Tensor, nn


def random_weights(module: nn.Module) -> dict[str, Tensor]:
    """Return weights for a module on the meta device that keep activations near unit size."""
    generator = torch.Generator().manual_seed(0)
    return {name: _random(value, generator) for name, value in module.state_dict().items()}


def _random(like: Tensor, generator: torch.Generator) -> Tensor:
    if like.ndim < 2:
        return torch.randn(like.shape, generator=generator).mul_(0.1).add_(1)
    return torch.randn(like.shape, generator=generator).mul_(like[0].numel() ** -0.5)
