"""Random weights, for measurements in which only sizes and finite numbers matter."""

import torch
from torch import Tensor, nn

CPU = torch.device("cpu")


def random_weights(module: nn.Module, device: torch.device = CPU) -> dict[str, Tensor]:
    """Return weights for a module on the meta device that keep activations near unit size.

    device: the device on which they are drawn; each device gives other numbers.
    """
    generator = torch.Generator(device).manual_seed(0)
    return {name: _random(value, generator) for name, value in module.state_dict().items()}


def _random(like: Tensor, generator: torch.Generator) -> Tensor:
    drawn = torch.randn(like.shape, generator=generator, device=generator.device)
    if like.ndim < 2:
        return drawn.mul_(0.1).add_(1)
    return drawn.mul_(like[0].numel() ** -0.5)
