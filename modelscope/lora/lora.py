"""What a LoRA adds to a model, and several of them applied together."""

from collections import defaultdict
from collections.abc import Mapping, Sequence

from ..memory.deltas import AppliedLoras, Delta, Deltas


class Lora(AppliedLoras):
    """What the LoRA of one file adds, at full weight unless `times` has changed that."""

    def times(self, unet: float, text: float) -> "Lora":
        """Return the same LoRA at these weights; a network at 0 is left out."""
        guidance = [delta.times(unet) for delta in self.guidance if unet]
        return Lora(_scale_deltas(self.unet, unet), _scale_deltas(self.text, text), guidance)


def _scale_deltas(deltas: Deltas, factor: float) -> dict[str, list[Delta]]:
    return {name: [delta.times(factor) for delta in added] for name, added in deltas.items()} if factor else {}


def apply_loras(loras: Sequence[Lora]) -> AppliedLoras:
    """Return what all of the LoRAs add together, for a run. The model stays as it is."""
    return AppliedLoras(
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
