"""Joins several LoRAs into one."""

from collections import defaultdict
from collections.abc import Mapping, Sequence

from ..memory.lora_deltas import Delta, LoraDeltas


def join_loras(loras: Sequence[LoraDeltas]) -> LoraDeltas:
    """Return one LoRA that adds to a model what all of these add together."""
    return LoraDeltas(
        _join_deltas([lora.unet for lora in loras]),
        _join_deltas([lora.text for lora in loras]),
        [delta for lora in loras for delta in lora.guidance],
    )


def _join_deltas(several: Sequence[Mapping[str, Sequence[Delta]]]) -> dict[str, list[Delta]]:
    found: dict[str, list[Delta]] = defaultdict(list)
    for deltas in several:
        for name, added in deltas.items():
            found[name] += added
    return dict(found)
