"""How much of the device's memory a run takes, computed from the shapes of the network's layers.

At any moment that is the weights that are there, what is held for later layers (the skips), what the current layer was
given, what it returns, and what it holds on its piece meanwhile:

    weights + skips + given + returned + piece

The largest of these sums over all layers is the estimate. Tests compare it with counted bytes.
"""

import itertools
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..config import AutoencoderConfig
from ..device import Place
from ..model import Model
from ..network.attention import ATTENTION_VALUES, FF_VALUES, SpatialTransformer, TemporalTransformer
from ..network.autoencoder import Autoencoder
from ..network.blocks import layers_of
from ..network.layers import RES_VALUES, Downsample, ResBlock, Upsample
from ..network.slices import ChunkBudget
from ..network.streamable import Streamable, tensors_of
from ..network.unet3d import UNet3D
from .deltas import Delta, deltas_of, merge_size
from .plan import Plan
from .streaming import copies_ahead

SPATIAL_HELD, TEMPORAL_HELD = 3, 5
"""Tensors of a transformer's piece beside the piece of its feed-forward network."""
LATENTS_HELD = 12
"""Float32 tensors of the latents' size: the solver's history, guidance, what is shown."""
TOKENS = 77
SAFETY = 1.06
"""The sums come within four per cent of what is counted, above or below; an estimate must not be below."""


class Clip(NamedTuple):
    """Frames of latents, or of a layer's activations."""

    frames: int
    height: int
    width: int

    @property
    def pixels(self) -> int:
        """Of all frames."""
        return self.frames * self.height * self.width

    def halved(self) -> "Clip":
        """Each frame's sides, rounded up."""
        return Clip(self.frames, -(-self.height // 2), -(-self.width // 2))


def needed(model: Model, plan: Plan, clip: Clip, *, tokens: int = TOKENS, draft: bool = False) -> int:
    """Bytes on the device at the moment when they are most.

    clip: of the latents; tokens: of the longer prompt, with padding; draft: deep levels are kept.
    """
    place, vae = model.place, model.vae_place
    text = max(weights_there(model.text_encoder, plan, place).values()) * place.dtype.itemsize
    text += merging_bytes(model.text_encoder, plan, place)
    unet = step_bytes(model.unet, plan, clip, place, tokens) + (deep_bytes(model.unet, clip, place) if draft else 0)
    decoder = decoder_bytes(model.autoencoder, plan, clip, vae.dtype) if vae.device == place.device else 0
    latents = LATENTS_HELD * 4 * model.config.unet.in_dim * clip.pixels
    return latents + round(SAFETY * max(text, unet, decoder))


def weights_there(module: Streamable, plan: Plan, place: Place) -> dict[nn.Module, int]:
    """How many numbers of a network's weights are on the device while a part runs: all, or its own and the next's.

    Those in 8 bits count as what takes the same place, and are there beside what they become.
    """
    parts = module.parts()
    if not plan.streamed and not plan.eight_bits:
        return dict.fromkeys(parts, _numbers(module))
    packed = {part: _packed_numbers(module, part, place.dtype) if plan.eight_bits else 0 for part in parts}
    if not plan.streamed:
        return {part: sum(packed.values()) + _numbers(part) for part in parts}
    ahead = copies_ahead(place.device)
    coming = {part: (packed[part] or _coming_numbers(part, place.dtype)) if ahead else 0 for part in parts}
    return {
        part: _numbers(part) + packed[part] + (coming[following] if following else 0)
        for part, following in itertools.zip_longest(parts, parts[1:])
    }


def _packed_numbers(module: Streamable, part: nn.Module, dtype: torch.dtype) -> int:
    if part in module.delicate():
        return _numbers(part)
    numbers = 0
    for tensor in tensors_of(part).values():
        # Scales are in single precision.
        single = -(-torch.float32.itemsize // dtype.itemsize) * len(tensor)
        numbers += tensor.numel() if tensor.ndim < 2 else -(-tensor.numel() // dtype.itemsize) + single
    return numbers


def _numbers(module: nn.Module) -> int:
    return sum(tensor.numel() for tensor in tensors_of(module).values())


def _coming_numbers(part: nn.Module, dtype: torch.dtype) -> int:
    """Weights to which something is added come in their file's precision."""
    worn = deltas_of(part)
    return sum(
        tensor.numel() * (-(-tensor.element_size() // dtype.itemsize) if name in worn else 1)
        for name, tensor in tensors_of(part).items()
    )


def merging_bytes(module: Streamable, plan: Plan, place: Place) -> int:
    """What adding LoRAs to weights takes on the device, beside all weights that are there; nothing without LoRAs."""
    if not plan.eight_bits:
        ahead = plan.streamed and copies_ahead(place.device)
        return max(_while_arriving(part, place, ahead) for part in (module.parts() if plan.streamed else [module]))
    # Packed in main memory, or on the device with another copy.
    each = 0 if plan.streamed else 2 * torch.float32.itemsize
    return max([0, *(each * merge_size(tensor, deltas).single for tensor, deltas in _worn(module))])


def _while_arriving(part: nn.Module, place: Place, ahead: bool) -> int:
    """By how much merging a part's weights, one after the other, exceeds what they take when all are there."""
    there = excess = 0
    for tensor, deltas in sorted(_worn(part), key=lambda pair: -pair[0].numel()):
        weight, single = merge_size(tensor, deltas)
        arrived = tensor.element_size() * weight if ahead else 0
        there += place.dtype.itemsize * weight
        excess = max(excess, there + torch.float32.itemsize * single + arrived)
    return max(0, excess - place.dtype.itemsize * _numbers(part))


def _worn(module: nn.Module) -> list[tuple[Tensor, Sequence[Delta]]]:
    tensors = tensors_of(module)
    return [(tensors[name], deltas) for name, deltas in deltas_of(module).items()]


def decoder_bytes(autoencoder: Autoencoder, plan: Plan, clip: Clip, dtype: torch.dtype) -> int:
    """What decoding one frame takes: the weights, a block's input and twice its output, and a piece."""
    weights = _numbers(autoencoder.decoder) + _numbers(autoencoder.post_quant_conv)
    frame = Clip(1, clip.height, clip.width).pixels * autoencoder.config.scale**2
    return (weights + max(_level_values(autoencoder.config, plan.chunk_budget, frame))) * dtype.itemsize


def _level_values(config: AutoencoderConfig, budget: ChunkBudget, pixels: int) -> Iterable[int]:
    channels = [config.ch * mult for mult in (*config.ch_mult, config.ch_mult[-1])]
    for given, returned in zip(channels[1:], channels, strict=False):
        whole = 3 * given * pixels
        yield pixels * (given + 2 * returned) + min(whole, 2 * (budget.values or whole))
        pixels //= 4


def step_bytes(unet: UNet3D, plan: Plan, clip: Clip, place: Place, tokens: int = TOKENS) -> int:
    """What one guided step takes: weights, activations, and the prompts as keys and values."""
    widths = [layer.proj_in.out_features for layer in unet.parts() if isinstance(layer, SpatialTransformer)]
    prompts = (8 if plan.batch_cfg else 4) * tokens * sum(widths)
    step = (prompts + _Walk(unet, plan, place, tokens).through(clip)) * place.dtype.itemsize
    return step + merging_bytes(unet, plan, place)


def deep_bytes(unet: UNet3D, clip: Clip, place: Place) -> int:
    """What the deep levels returned for both halves of guidance, kept from step to step."""
    config = unet.config
    return 2 * config.dim * config.dim_mult[min(1, config.deepest)] * clip.pixels * place.dtype.itemsize


class _Walk:
    """Goes through the network as its forward pass does, and adds up instead of computing."""

    def __init__(self, unet: UNet3D, plan: Plan, place: Place, tokens: int) -> None:
        self._unet, self._weights = unet, weights_there(unet, plan, place)
        self._tokens = tokens
        self._budget, self._batch = plan.chunk_budget, 2 if plan.batch_cfg else 1
        self._wide = max(1, torch.float32.itemsize // place.dtype.itemsize)
        self._skips: list[tuple[Clip, int]] = []
        self._there = self._shared = self._peak = 0

    def through(self, clip: Clip) -> int:
        """The most that is held."""
        unet = self._unet
        clip, channels = clip._replace(frames=self._batch * clip.frames), unet.config.in_dim
        for number, block in enumerate(unet.input_blocks):
            clip, channels = self._block(layers_of(block), clip, [channels])
            self._skips.append((clip, channels))
            if number == 1 and self._batch == 1:
                # What the second half need not do again waits: the block's first output, and its tokens.
                self._shared = 2 * channels * clip.pixels
        clip, channels = self._block(layers_of(unet.middle_block), clip, [channels])
        for block in unet.output_blocks:
            skip = self._skips.pop()[1]
            size = self._skips[-1][0] if self._skips else clip
            clip, channels = self._block(layers_of(block), clip, [channels, skip], size, overwrite=bool(self._skips))
        self._there = self._weights[unet.out]
        self._note(channels * clip.pixels, self._piece(clip.frames, 3 * channels * clip.pixels))
        return self._peak

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
                    channels, clip = given[0], self._resampled(given[0], clip, clip.halved(), 1)
                case Upsample():
                    assert size
                    channels, clip = given[0], self._resampled(given[0], clip, size, 2)
                case _:
                    # The stem's convolution.
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
        self._note(held + own, self._piece(clip.frames, each) * (2 if several else 3) // 3)
        self._note(2 * returned, self._norm(channels, clip), self._piece(clip.height * clip.width, 3 * returned))
        return channels

    def _transformer(self, layer: nn.Module, clip: Clip, channels: int) -> int:
        values = channels * clip.pixels
        spatial = isinstance(layer, SpatialTransformer)
        attention = self._piece(clip.frames if spatial else clip.height * clip.width, ATTENTION_VALUES * values)
        tokens = attention // ATTENTION_VALUES
        feed_forward = (SPATIAL_HELD if spatial else TEMPORAL_HELD) * tokens + self._piece(
            max(1, tokens // channels), FF_VALUES * tokens
        )
        norm = 0 if spatial else self._norm(channels, clip)
        # A piece that belongs to both halves of guidance gets the prompts' keys for each of its frames.
        frames = tokens // (channels * clip.height * clip.width)
        between = spatial and self._batch > 1 and -(-clip.frames // frames) % 2 == 1
        prompts = 2 * self._tokens * channels * frames if between else 0
        self._note(values + prompts, attention, feed_forward, norm)
        return channels

    def _resampled(self, channels: int, clip: Clip, size: Clip, held: int) -> Clip:
        goal = Clip(clip.frames, size.height, size.width)
        pieces = self._piece(clip.frames, held * channels * goal.pixels)
        self._note(channels * (clip.pixels + goal.pixels), pieces)
        return goal

    def _norm(self, channels: int, clip: Clip) -> int:
        return self._piece(clip.frames // self._batch, 3 * self._wide * channels * clip.pixels)

    def _piece(self, count: int, values: int) -> int:
        """The largest piece, of so many items that take so many values together."""
        pieces = self._budget.slices(count, -(-values // count))
        return max(piece.stop - piece.start for piece in pieces) * -(-values // count)

    def _note(self, held: int, *pieces: int) -> None:
        skips = sum(channels * clip.pixels for clip, channels in self._skips)
        self._peak = max(self._peak, self._there + self._shared + skips + held + max(pieces, default=0))
