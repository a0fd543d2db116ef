"""Linear layers that run oneDNN's matrix product on a CPU.

In single precision it is quicker than torch's own. It adds the bias without a second pass over the result, and accepts
non-contiguous tokens, for which torch would copy the weight once for each frame.
"""

import functools

import torch
from torch import Tensor, nn
from torch.nn import functional as F

TOLERANCES = {torch.float32: 1e-5, torch.bfloat16: 0.05}
"""Precisions in which oneDNN's product is used, and how far it may be from torch's in a trial."""
SIZES = ((96, (3, 4, 8)), (40, (5, 8)), (5, (5,)))
"""Sizes of the trial's input, weight and bias."""


class Linear(nn.Linear):
    """A linear layer with the weights of torch's."""

    def forward(self, x: Tensor) -> Tensor:
        """[..., in_features] -> [..., out_features]."""
        return linear(x, self.weight, self.bias)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Multiply by a weight and add a bias: [..., i], [o, i], [o] -> [..., o]."""
    if x.device.type == "cpu" and not torch.is_grad_enabled() and _has_onednn(x.dtype) and _in_one_piece(weight, bias):
        return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")  # noqa: SLF001 - no public name
    return F.linear(x, weight, bias)


def _in_one_piece(weight: Tensor, bias: Tensor | None) -> bool:
    """Return whether oneDNN reads them rightly: it takes both for contiguous, and a file may hold others."""
    return weight.is_contiguous() and (bias is None or bias.is_contiguous())


@functools.cache
def _has_onednn(dtype: torch.dtype) -> bool:
    """Return whether oneDNN's product, which torch has for compiled graphs, computes as expected in a precision."""
    if dtype not in TOLERANCES:
        return False
    x, weight, bias = (torch.linspace(-1, 1, n).view(size).to(dtype) for n, size in SIZES)
    try:
        found = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")  # noqa: SLF001
    except (AttributeError, RuntimeError, TypeError):
        return False
    return torch.allclose(found, F.linear(x, weight, bias), atol=TOLERANCES[dtype])
