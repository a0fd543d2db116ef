"""The three parts of training, each a loss for one step: text tower, autoencoder, UNet."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..modelscope.network.autoencoder import LATENT_SCALE, Autoencoder
from ..modelscope.network.text_encoder import TextEncoder
from ..modelscope.network.unet3d import UNet3D
from ..modelscope.prompts.tokens import tokenize
from ..modelscope.sampling.schedules import TRAIN_STEPS, alphas_cumprod
from .captions import caption
from .recipe import MINIATURE, Recipe
from .world import COLOURS, DIRECTIONS, SHAPES, TRAINED, Label, draw

UNSAID = -100
"""cross_entropy's ignored target."""


def pick(generator: torch.Generator, count: int) -> list[Label]:
    """Return random training labels."""
    return [TRAINED[i] for i in torch.randint(len(TRAINED), (count,), generator=generator).tolist()]


class TextStage(nn.Module):
    """The tower learns to say, from every token after the caption's end, which colour, shape and direction it named.

    The finished model's tower was trained on its own too (by CLIP); here a classifier stands in for the images.
    """

    def __init__(self, recipe: Recipe):
        super().__init__()
        self.recipe = recipe
        self.tower = TextEncoder(MINIATURE.text)
        nn.init.normal_(self.tower.token_embedding.weight, std=0.2)
        nn.init.normal_(self.tower.positional_embedding, std=0.1)
        self.heads = nn.ModuleList(nn.Linear(MINIATURE.text.width, len(names)) for names in _NAMES)

    def loss(self, generator: torch.Generator, device: torch.device) -> Tensor:
        """Return the cross-entropy over the parts that the captions name."""
        labels = pick(generator, self.recipe.text_batch)
        captions = [caption(label, generator, partial=0.3) for label in labels]
        tokens = tokenize(captions).to(device)
        features = self.tower(tokens)
        after_end = torch.arange(tokens.shape[1], device=device) >= tokens.argmax(1)[:, None]
        loss = features.new_zeros(())
        for head, names, field in zip(self.heads, _NAMES, ("colour", "shape", "direction"), strict=True):
            named = [getattr(label, field) for label in labels]
            ids = [names.index(n) if n in text else UNSAID for n, text in zip(named, captions, strict=True)]
            targets = torch.tensor(ids, device=device)[:, None].expand_as(after_end)
            loss = loss + F.cross_entropy(head(features)[after_end], targets[after_end], ignore_index=UNSAID)
        return loss

    @torch.no_grad()
    def finish(self) -> TextEncoder:
        """Return the tower, with the rows of words it never saw set to zero."""
        generator = torch.Generator().manual_seed(0)
        seen = tokenize([caption(x, generator, partial=0.3) for x in TRAINED for _ in range(40)]).unique()
        rows = torch.zeros(MINIATURE.text.vocab_size, 1, device=self.tower.token_embedding.weight.device)
        rows[seen] = 1
        self.tower.token_embedding.weight.mul_(rows)
        return self.tower.eval()


_NAMES = (list(COLOURS), list(SHAPES), list(DIRECTIONS))


class AutoencoderStage(nn.Module):
    """The autoencoder learns to bring frames through a noisy bottleneck and back."""

    def __init__(self, recipe: Recipe):
        super().__init__()
        self.recipe = recipe
        self.autoencoder = Autoencoder(MINIATURE.autoencoder)

    def loss(self, generator: torch.Generator, device: torch.device) -> Tensor:
        """Return the squared error, weighted towards the shape, and a pull of the latents towards unit size."""
        clips = [draw(label, 2, generator) for label in pick(generator, self.recipe.autoencoder_batch // 2)]
        frames = torch.cat(clips).to(device) * 2 - 1
        mean, _ = self.autoencoder.encode(frames)
        noise = torch.randn(mean.shape, generator=generator).to(device)
        decoded = self.autoencoder.decode(mean + self.recipe.latent_noise * noise)
        background = frames[:, :, :1, :1]
        shape = (frames - background).abs().amax(1, keepdim=True) > 0.1
        error = ((1 + self.recipe.shape_weight * shape) * (decoded - frames) ** 2).mean()
        size = (mean.pow(2).mean() - 1).square()
        return error + 0.01 * size

    @torch.no_grad()
    def finish(self) -> Autoencoder:
        """Return the autoencoder, its latents rescaled so that they have unit variance after LATENT_SCALE."""
        generator = torch.Generator().manual_seed(0)
        device = self.autoencoder.quant_conv.weight.device
        frames = torch.cat([draw(label, 2, generator) for label in TRAINED]).to(device) * 2 - 1
        mean, _ = self.autoencoder.encode(frames)
        factor = 1 / (LATENT_SCALE * mean.std())
        channels = MINIATURE.autoencoder.embed_dim
        for parameter in self.autoencoder.quant_conv.parameters():
            parameter[:channels] *= factor
        self.autoencoder.post_quant_conv.weight /= factor
        return self.autoencoder.eval()


@dataclass
class Clips:
    """Training clips as latents [n, c, f, h, w] and their labels."""

    latents: Tensor
    labels: list[Label]


@torch.no_grad()
def encode_clips(
    autoencoder: Autoencoder, recipe: Recipe, device: torch.device, shown: Sequence[Label] = TRAINED
) -> Clips:
    """Draw and encode every training clip of the labels."""
    generator = torch.Generator().manual_seed(recipe.seed)
    labels = [label for label in shown for _ in range(recipe.clips_per_label)]
    latents = []
    for label in labels:
        frames = draw(label, recipe.clip_frames, generator).to(device) * 2 - 1
        latents.append(autoencoder.frames_to_latents(frames).transpose(0, 1))
    return Clips(torch.stack(latents), labels)


class UNetStage(nn.Module):
    """The UNet learns to predict noise at random timesteps, with captions from the finished text tower."""

    def __init__(self, recipe: Recipe, tower: TextEncoder, clips: Clips):
        super().__init__()
        self.recipe = recipe
        self.unet = UNet3D(MINIATURE.unet)
        nn.init.zeros_(self.unet.out[-1].weight)  # type: ignore[arg-type]
        self._frozen = (tower, clips)
        self.register_buffer("alphas", alphas_cumprod().float(), persistent=False)

    @torch.no_grad()
    def text(self, tokens: Tensor) -> Tensor:
        """Return the features of captions."""
        return self._frozen[0](tokens)

    def loss(self, generator: torch.Generator, device: torch.device) -> Tensor:
        """Return the weighted squared error of the predicted noise."""
        _, clips = self._frozen
        long = float(torch.rand((), generator=generator)) < self.recipe.long_clips
        chosen = torch.randint(len(clips.labels), (self.recipe.unet_batch // (1 + long),), generator=generator)
        captions = [
            caption(clips.labels[i], generator, self.recipe.empty_captions, self.recipe.partial_captions)
            for i in chosen.tolist()
        ]
        text = self.text(tokenize(captions).to(device))
        x0 = clips.latents[chosen.to(clips.latents.device)].to(device)
        if not long:
            start = int(torch.randint(2, (), generator=generator))
            x0 = x0[:, :, start::2]
        t = ((TRAIN_STEPS - 1) * torch.rand(len(x0), generator=generator) ** self.recipe.late_bias).round().long()
        noise = torch.randn(x0.shape, generator=generator).to(device)
        alpha = self.alphas[t.to(device)].view(-1, 1, 1, 1, 1)  # type: ignore[index]
        noisy = alpha.sqrt() * x0 + (1 - alpha).sqrt() * noise
        snr = alpha / (1 - alpha)
        weight = snr.clamp(self.recipe.snr_floor, self.recipe.snr_limit) / snr
        predicted = self.unet(noisy, t.to(device), self.unet.text_context(text))
        return (weight * (predicted - noise) ** 2).mean()
