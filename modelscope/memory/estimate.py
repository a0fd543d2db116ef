"""Estimates how much of the device's memory a run takes, from the shapes of the network's layers.

At any moment the device holds weights, tensors for later layers (the skips), the present layer's input and output, and
what the layer computes for its present slice:

    weights + skips + given + returned + slice

The estimate is the largest of these sums over all layers, plus what a card's kernels take. Tests compare it with
counted bytes. Counting them here as well, with tensors on the meta device, would be exact, but takes 10 to 45 seconds
on one core at full size. A choice of a plan asks for several estimates, and the page asks at every move of a slider.
The sums take a tenth of a second.
"""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import torch
from torch import nn

from ..config import AutoencoderConfig
from ..device import Place
from ..model import Model
from ..network.attention import ATTENTION_VALUES, FF_VALUES, SpatialTransformer, TemporalTransformer
from ..network.autoencoder import Autoencoder
from ..network.blocks import layers_of
from ..network.layers import RES_VALUES, Downsample, ResBlock, Upsample
from ..network.slices import WHOLE, ChunkBudget
from ..network.tiny_decoder import TINY_SCALE, TINY_VALUES, TinyDecoder
from ..network.unet3d import UNet3D
from .estimate_weights import count_numbers, count_weights, estimate_merging
from .lora_deltas import NO_DELTAS, NO_LORAS, Deltas, LoraDeltas
from .plan import Plan

SPATIAL_HELD, TEMPORAL_HELD = 0, 1
"""Number of tensors, each as large as a transformer's slice, that it holds in addition to those within its blocks."""
LATENTS_HELD = 14
"""Number of float32 tensors of the latents' size: the solver's history, guidance, the preview and a source."""
TOKENS = 77
SAFETY = 1.1
"""Factor for activations, whose sums come within six per cent of counted bytes: cards round the sizes of tensors up,
and keep some tensors longer."""
KERNELS, LARGE_SLICE, WORKSPACE = 270_000_000, 128_000_000, 0.65
"""Bytes that kernels themselves take on a card. Slices of more than LARGE_SLICE numbers need a workspace as well: this
share of what is beyond. Measured on H200s with torch 2.11 (docs/benchmark.md)."""


class Clip(NamedTuple):
    """Size of latents or of a layer's activations: number of frames, and their height and width."""

    frames: int
    height: int
    width: int

    @property
    def pixels(self) -> int:
        """Number of pixels of all frames together."""
        return self.frames * self.height * self.width

    def halve(self) -> "Clip":
        """Return a clip with sides half as long, rounded up."""
        return Clip(self.frames, -(-self.height // 2), -(-self.width // 2))


def estimate_bytes(
    model: Model,
    plan: Plan,
    clip: Clip,
    *,
    tokens: int = TOKENS,
    draft: bool = False,
    loras: LoraDeltas = NO_LORAS,
) -> int:
    """Return the peak number of bytes on the device during a run.

    Args:
        model: The model; only the shapes of its networks are used.
        plan: How the run uses memory.
        clip: Size of the latents.
        tokens: Number of tokens of the longer prompt, with padding.
        draft: Whether results of deep levels are kept from step to step.
        loras: What is added to the weights.
    """
    place, vae = model.place, model.vae_place
    text = max(count_weights(model.text_encoder, plan, place, loras.text).values()) * place.dtype.itemsize
    text += estimate_merging(model.text_encoder, plan, place, loras.text)
    unet = estimate_step(model.unet, plan, clip, place, tokens, loras.unet)
    unet += estimate_deep_levels(model.unet, clip, place) if draft else 0
    decoder = estimate_decoder(model.autoencoder, plan, clip, vae) if vae.device == place.device else 0
    latents = LATENTS_HELD * 4 * model.config.unet.in_dim * clip.pixels
    return latents + estimate_kernels(model.unet, plan, clip, place) + max(text, unet, decoder)


def estimate_kernels(unet: UNet3D, plan: Plan, clip: Clip, place: Place) -> int:
    """Return how many bytes kernels take beside the tensors they are given."""
    if place.device.type == "cpu":
        return 0
    widest = (2 if plan.batch_cfg else 1) * FF_VALUES * unet.config.dim * clip.pixels
    values = min(widest, plan.budget_on(place.device).values or widest)
    return KERNELS + round(WORKSPACE * max(0, values - LARGE_SLICE) * place.dtype.itemsize)


def estimate_decoder(autoencoder: Autoencoder, plan: Plan, clip: Clip, place: Place) -> int:
    """Return how many bytes decoding takes: the weights, a block's input and twice its output, and a slice.

    Encoding takes less: the encoder has fewer weights and channels, and gets one frame at a time.

    clip: size of the latents; place: the autoencoder's.
    """
    weights = count_numbers(autoencoder.decoder) + count_numbers(autoencoder.post_quant_conv)
    budget, config = plan.budget_on(place.device), autoencoder.config
    together = min(clip.frames, frames_at_once(autoencoder, plan, clip, place))
    pixels = together * Clip(1, clip.height, clip.width).pixels * config.scale**2
    return (weights + round(SAFETY * max(_level_values(config, budget, pixels)))) * place.dtype.itemsize


def frames_at_once(decoder: Autoencoder | TinyDecoder, plan: Plan, clip: Clip, place: Place) -> int:
    """Return how many frames are decoded together: as many as the budget allows, and at least one.

    clip: size of the latents; place: where they are decoded.
    """
    if place.device.type == "cpu":
        # A CPU would gain nothing from more, and Interrupt acts after each frame.
        return 1
    if isinstance(decoder, TinyDecoder):
        each = TINY_VALUES * clip.height * clip.width * TINY_SCALE**2
    else:
        config = decoder.config
        each = max(_level_values(config, WHOLE, clip.height * clip.width * config.scale**2))
    return max(1, (plan.budget_on(place.device).values or 0) // each)


def _level_values(config: AutoencoderConfig, budget: ChunkBudget, pixels: int) -> Iterable[int]:
    """Yield how many numbers each level of the decoder holds. pixels: number of pixels of all frames together."""
    channels = [config.ch * mult for mult in (*config.ch_mult, config.ch_mult[-1])]
    for given, returned in zip(channels[1:], channels, strict=False):
        whole = 3 * given * pixels
        yield pixels * (given + 2 * returned) + min(whole, 2 * (budget.values or whole))
        pixels //= 4


def estimate_step(
    unet: UNet3D, plan: Plan, clip: Clip, place: Place, tokens: int = TOKENS, deltas: Deltas = NO_DELTAS
) -> int:
    """Return how many bytes one guided step takes: weights, activations, and the prompts as keys and values.

    Args:
        unet: The UNet; only the shapes of its weights are used.
        plan: How the run uses memory.
        clip: Size of the latents.
        place: Device and precision.
        tokens: Number of tokens of the longer prompt, with padding.
        deltas: What LoRAs add to the weights.
    """
    widths = [layer.proj_in.out_features for layer in unet.parts() if isinstance(layer, SpatialTransformer)]
    prompts = (8 if plan.batch_cfg else 4) * tokens * sum(widths)
    weights = count_weights(unet, plan, place, deltas)
    step = (prompts + _Walk(unet, weights, plan, place, tokens).find_peak(clip)) * place.dtype.itemsize
    return step + estimate_merging(unet, plan, place, deltas)


def estimate_deep_levels(unet: UNet3D, clip: Clip, place: Place) -> int:
    """Return how many bytes the results of the deep levels take for both guidance passes."""
    config = unet.config
    return 2 * config.dim * config.dim_mult[min(1, config.deepest)] * clip.pixels * place.dtype.itemsize


class _Walk:
    """A walk through the network, as in its forward pass, that adds up counts of numbers instead of computing.

    weights: how many weights are on the device while each part runs.
    """

    def __init__(self, unet: UNet3D, weights: Mapping[nn.Module, int], plan: Plan, place: Place, tokens: int) -> None:
        self._unet, self._weights = unet, weights
        self._tokens = tokens
        self._budget, self._batch = plan.budget_on(place.device), 2 if plan.batch_cfg else 1
        self._wide = max(1, torch.float32.itemsize // place.dtype.itemsize)
        self._copies_for_norms = self._wide == 1 or place.device.type == "cpu"
        self._skips: list[tuple[Clip, int]] = []
        self._there = self._shared = self._peak = 0

    def find_peak(self, clip: Clip) -> int:
        """Return the largest count of numbers held at once. clip: size of the latents."""
        unet = self._unet
        stem, first, *others = unet.input_blocks
        clip, channels, layers = self._prepare(layers_of(stem), layers_of(first), clip)
        clip, channels = self._block(layers, clip, [channels])
        self._skips.append((clip, channels))
        for block in others:
            clip, channels = self._block(layers_of(block), clip, [channels])
            self._skips.append((clip, channels))
        clip, channels = self._block(layers_of(unet.middle_block), clip, [channels])
        for block in unet.output_blocks:
            skip = self._skips.pop()[1]
            size = self._skips[-1][0] if self._skips else clip
            clip, channels = self._block(layers_of(block), clip, [channels, skip], size, overwrite=bool(self._skips))
        self._there = self._weights[unet.out]
        self._note(channels * clip.pixels, self._slice_values(clip.frames, 3 * channels * clip.pixels))
        return self._peak

    def _prepare(self, stem: list[nn.Module], first: list[nn.Module], clip: Clip) -> tuple[Clip, int, list[nn.Module]]:
        """Go through the layers that do not see the text, and therefore run only once for all texts.

        Return the clip for all texts, its channels, and the remaining layers of the first block.
        """
        batch, self._batch = self._batch, 1
        _, channels = self._block(stem, clip, [self._unet.config.in_dim])
        self._skips.append((clip, channels))
        _, channels = self._block(first[:1], clip, [channels])
        if batch == 1 and len(first) > 1:
            # For the second text, the first ResBlock's output and the transformer's tokens are kept.
            self._shared = 2 * channels * clip.pixels
        self._batch = batch
        clip = clip._replace(frames=batch * clip.frames)
        self._skips = [(clip, self._unet.config.dim)]
        return clip, channels, first[1:]

    def _block(
        self,
        layers: list[nn.Module],
        clip: Clip,
        given: list[int],
        size: Clip | None = None,
        *,
        overwrite: bool = False,
    ) -> tuple[Clip, int]:
        for layer in layers:
            self._there = self._weights[layer]
            match layer:
                case ResBlock():
                    channels = self._res_block(layer, clip, given, overwrite=overwrite)
                case SpatialTransformer() | TemporalTransformer():
                    channels = self._transformer(layer, clip, given[0])
                case Downsample():
                    channels, clip = given[0], self._resample(given[0], clip, clip.halve(), 1)
                case Upsample():
                    assert size
                    channels, clip = given[0], self._resample(given[0], clip, size, 2)
                case _:
                    # This is the stem's convolution.
                    channels = self._unet.config.dim
                    self._note(channels * clip.pixels)
            given = [channels]
        return clip, given[0]

    def _res_block(self, layer: ResBlock, clip: Clip, given: list[int], *, overwrite: bool) -> int:
        last: Any = layer.temopral_conv.conv4[-1]
        channels: int = last.out_channels
        returned = channels * clip.pixels
        held, several = sum(given) * clip.pixels, len(given) > 1
        each = RES_VALUES * (sum(given) + channels) * clip.pixels
        own = 0 if overwrite and given[-1] == channels else returned
        self._note(held + own, self._slice_values(clip.frames, each) * (2 if several else 3) // 3)
        self._note(2 * returned, self._norm(channels, clip), self._slice_values(clip.height * clip.width, 3 * returned))
        return channels

    def _transformer(self, layer: SpatialTransformer | TemporalTransformer, clip: Clip, channels: int) -> int:
        values = channels * clip.pixels
        spatial = isinstance(layer, SpatialTransformer)
        sliced = clip.frames if spatial else clip.height * clip.width
        given = self._slice_values(sliced, ATTENTION_VALUES * values) // ATTENTION_VALUES
        # The stem's transformer is wider inside.
        inner = layer.proj_in.weight.shape[0]
        tokens = given * inner // channels
        held = (SPATIAL_HELD if spatial else TEMPORAL_HELD) * given
        attention = held + ATTENTION_VALUES * tokens
        feed_forward = held + tokens + self._slice_values(max(1, tokens // inner), FF_VALUES * tokens)
        norm = 0 if spatial else self._norm(channels, clip)
        # A slice with frames of both guidance passes gets the prompts' keys and values for each of its frames.
        frames = given // (channels * clip.height * clip.width)
        between = spatial and self._batch > 1 and -(-clip.frames // frames) % 2 == 1
        prompts = 2 * self._tokens * channels * frames if between else 0
        self._note(values + prompts, attention, feed_forward, norm)
        return channels

    def _resample(self, channels: int, clip: Clip, size: Clip, held: int) -> Clip:
        goal = Clip(clip.frames, size.height, size.width)
        slices = self._slice_values(clip.frames, held * channels * goal.pixels)
        self._note(channels * (clip.pixels + goal.pixels), slices)
        return goal

    def _norm(self, channels: int, clip: Clip) -> int:
        """Return how many numbers are held while a clip's norm is measured: none in half precision on a card."""
        if not self._copies_for_norms:
            return 0
        # A copy in single precision, if there is one, the distances from the mean, and their squares.
        held = (3 if self._wide > 1 else 2) * channels * clip.pixels
        return self._wide * self._slice_values(clip.frames // self._batch, held)

    def _slice_values(self, count: int, values: int) -> int:
        """Return how many numbers the largest slice holds. count: number of items; values: numbers of all items."""
        slices = self._budget.slices(count, -(-values // count))
        return max(one.stop - one.start for one in slices) * -(-values // count)

    def _note(self, held: int, *slices: int) -> None:
        """Raise the peak to that of a layer, if it is higher.

        held: numbers of the layer's input and output; slices: numbers of its slices, of which one is held at a time.
        """
        skips = sum(channels * clip.pixels for clip, channels in self._skips)
        activations = self._shared + skips + held + max(slices, default=0)
        self._peak = max(self._peak, self._there + round(SAFETY * activations))
