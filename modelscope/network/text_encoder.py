"""OpenCLIP's text tower (ViT-H-14 at full size): token ids to the features the UNet attends to."""

import torch
from torch import Tensor, nn

from ..config import TextConfig
from ..device import Place
from .open_clip_import import open_clip_module
from .streamable import Streamable


class TextEncoder(Streamable):
    """The text tower up to the penultimate block, then ln_final. The visual tower and the last block are never built.

    Names are the checkpoint's. open_clip's blocks take [n, length, d] since 2.26 and [length, n, d] before.
    """

    def __init__(self, config: TextConfig):
        super().__init__()
        self.config = config
        tower = open_clip_module("transformer").Transformer(config.width, config.layers - 1, config.heads)
        self._batch_first = getattr(tower, "batch_first", False)
        self.token_embedding = nn.Embedding(config.vocab_size, config.width)
        self.positional_embedding = nn.Parameter(torch.zeros(config.context_length, config.width))
        self.transformer = tower
        self.ln_final = nn.LayerNorm(config.width)

    def parts(self) -> list[nn.Module]:
        """Return what brings its weights for itself."""
        return [*self.transformer.resblocks, self.ln_final]

    def forward(self, tokens: Tensor, place: Place | None = None) -> Tensor:
        """Token ids [n, 77] -> features [n, 77, width].

        place: where to compute, if the weights wait elsewhere.
        """
        # The table of all tokens stays where it is; only the rows that are needed move.
        x = self.token_embedding(tokens.to(self.token_embedding.weight.device))
        x = x.to(*place) if place else x
        x = x + self.positional_embedding.to(x)
        length = tokens.shape[1]
        future = torch.full((length, length), float("-inf"), dtype=x.dtype, device=x.device).triu(1)
        if not self._batch_first:
            x = x.transpose(0, 1)
        for block in self.transformer.resblocks:
            with self.weights(block):
                x = block(x, attn_mask=future)
        if not self._batch_first:
            x = x.transpose(0, 1)
        with self.weights(self.ln_final):
            return self.ln_final(x)
