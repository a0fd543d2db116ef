"""OpenCLIP's text tower (ViT-H-14 at full size): turns token ids into the features that the UNet attends to."""

from collections import OrderedDict

import torch
from torch import Tensor, nn

from ..config import TextConfig
from ..device import Place
from .linear import Linear
from .streamable import Streamable

MLP_RATIO = 4


class TextEncoder(Streamable):
    """The text tower up to the penultimate block, then ln_final. The visual tower and the last block are never built.

    Names are the checkpoint's, which come from open_clip's `TextTransformer`.
    """

    def __init__(self, config: TextConfig):
        super().__init__()
        self.config = config
        blocks = [TextBlock(config.width, config.heads) for _ in range(config.layers - 1)]
        # Not the constructor: its random numbers import torch's compiler on the meta device, which takes a second.
        self.token_embedding = nn.Embedding.from_pretrained(torch.empty(config.vocab_size, config.width), freeze=False)
        self.positional_embedding = nn.Parameter(torch.zeros(config.context_length, config.width))
        self.transformer = nn.ModuleDict({"resblocks": nn.ModuleList(blocks)})
        self.ln_final = nn.LayerNorm(config.width)

    def parts(self) -> list[nn.Module]:
        """Return the modules whose weights are brought separately, in the order of a pass."""
        return [*self._blocks, self.ln_final]

    @property
    def _blocks(self) -> list[nn.Module]:
        return list(self.transformer["resblocks"].children())

    def forward(self, tokens: Tensor, place: Place | None = None) -> Tensor:
        """Turn token ids [n, 77] into features [n, 77, width].

        place: device and precision to compute in, if they differ from those of the embedding's weights.
        """
        # The table of all tokens is not moved, only the rows that are needed.
        x = self.token_embedding(tokens.to(self.token_embedding.weight.device))
        x = x.to(*place) if place else x
        x = x + self.positional_embedding.to(x)
        length = tokens.shape[1]
        future = torch.full((length, length), float("-inf"), dtype=x.dtype, device=x.device).triu(1)
        for block in self._blocks:
            with self.weights(block):
                x = block(x, future)
        with self.weights(self.ln_final):
            return self.ln_final(x)


class TextBlock(nn.Module):
    """Causal self-attention, then a network for each token; both take normed features, and are added to their input."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.ln_1 = nn.LayerNorm(width)
        self.attn = nn.MultiheadAttention(width, heads, batch_first=True)
        self.ln_2 = nn.LayerNorm(width)
        layers = (
            ("c_fc", Linear(width, MLP_RATIO * width)),
            ("gelu", nn.GELU()),
            ("c_proj", Linear(MLP_RATIO * width, width)),
        )
        self.mlp = nn.Sequential(OrderedDict(layers))

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Turn features [n, length, width] into others of this shape. mask: [length, length], added to the scores."""
        normed = self.ln_1(x)
        x = x + self.attn(normed, normed, normed, need_weights=False, attn_mask=mask)[0]
        return x + self.mlp(self.ln_2(x))
