"""Linear layers that run oneDNN's matrix product on a CPU, which in single precision is quicker than torch's own."""

import functools

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Linear(nn.Linear):
    """A linear layer with the weights of torch's."""

    def forward(self, x: Tensor) -> Tensor:
        """[..., in_features] -> [..., out_features]."""
        return linear(x, self.weight, self.bias)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Multiply by a weight and add a bias: [..., i], [o, i], [o] -> [..., o]."""
    if x.device.type == "cpu" and x.dtype == torch.float32 and not torch.is_grad_enabled() and _has_onednn():
        return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")  # noqa: SLF001 - no public name
    return F.linear(x, weight, bias)


@functools.cache
def _has_onednn() -> bool:
    """Return whether this build of torch has the product for compiled graphs, and computes it as expected."""
    x, weight, bias = (torch.linspace(-1, 1, n).view(size) for n, size in ((96, (3, 4, 8)), (40, (5, 8)), (5, (5,))))
    try:
        found = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")  # noqa: SLF001
    except (AttributeError, RuntimeError, TypeError):
        return False
    return torch.allclose(found, F.linear(x, weight, bias), atol=1e-5)
