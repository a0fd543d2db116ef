"""What a request's prompt asks to be worn, and how a T2V-Turbo among it changes the request."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ...modelscope.lora.lora import apply_loras
from ...modelscope.lora.lora_file import read_lora
from ...modelscope.memory.deltas import AppliedLoras
from ...modelscope.model import Model
from ..request import GenerationRequest
from .lora_files import find_loras, lora_named
from .lora_tags import Wish, checked_weight, split_tags

TURBO_SAMPLER, TURBO_STEPS, TURBO_SCALE = "LCM", 4, 7.5
MOST_STEPS, GOOD_STEPS = 16, 8
"""Steps that T2V-Turbo can still use, and those from which more do not help."""
SCALES = (5.0, 15.0)
"""The guidance scales that it was distilled with."""
_WITHOUT_EFFECT = ("eta", "cfg_rescale", "cfg_from", "cfg_until")


class Wardrobe(NamedTuple):
    """Files by weight, and what has to be said about how they were named."""

    wishes: dict[Path, Wish]
    notes: list[str]

    @classmethod
    def of(cls, folder: Path, request: GenerationRequest) -> "Wardrobe":
        """What the prompt names. Raises RequestError."""
        wishes: dict[Path, Wish] = {}
        notes, named = [], split_tags(request.prompt)[1]
        found = find_loras(folder) if named else {}
        for wish in named:
            path = lora_named(found, wish.name)
            if before := wishes.get(path):
                what = f"The LoRA {wish.name!r}, named more than once"
                text, unet = (
                    checked_weight(what, one + other) for one, other in zip(before[1:], wish[1:], strict=True)
                )
                wish = Wish(wish.name, text, unet)  # noqa: PLW2901 - the sum of both
                notes.append(f"The LoRA {wish.name!r} is named more than once: its weights add up to {unet:g}.")
            wishes[path] = wish
        if split_tags(request.negative_prompt)[1]:
            notes.append(
                "LoRAs have no effect in the negative prompt; name them in the prompt, a weight may be below 0."
            )
        return cls(wishes, notes)

    def read(self, model: Model) -> AppliedLoras:
        """Read the files and apply them at their weights. Raises ModelError."""
        return apply_loras([read_lora(path, model).times(wish.unet, wish.text) for path, wish in self.wishes.items()])


def without_tags(request: GenerationRequest) -> GenerationRequest:
    """As the model is to read it."""
    prompt, negative = (split_tags(text)[0] for text in (request.prompt, request.negative_prompt))
    return dataclasses.replace(request, prompt=prompt, negative_prompt=negative)


def suited(
    request: GenerationRequest, loras: AppliedLoras, recommended: Mapping[str, Any]
) -> tuple[GenerationRequest, list[str]]:
    """The request as the LoRAs need it, and what is to be said about that.

    recommended: the model's good values; a field that still has them was nobody's wish.
    """
    if not loras.is_turbo:
        alone = ["The sampler LCM is meant for T2V-Turbo, whose LoRA the prompt does not name."]
        return request, alone if request.sampler == TURBO_SAMPLER else []
    untouched = {
        field.name
        for field in dataclasses.fields(request)
        if getattr(request, field.name) == recommended.get(field.name, field.default)
    }
    notes = list(_misunderstandings(request, untouched))
    steps = TURBO_STEPS if "steps" in untouched else request.steps
    request = dataclasses.replace(
        request,
        sampler=TURBO_SAMPLER,
        steps=GOOD_STEPS if steps > MOST_STEPS else steps,
        cfg_scale=TURBO_SCALE if "cfg_scale" in untouched else request.cfg_scale,
        draft=1,
    )
    steps_said = f"{request.steps} step{'s' * (request.steps != 1)}"
    said = f"T2V-Turbo: {request.sampler}, {steps_said}, CFG scale {request.cfg_scale:g}, one pass per step."
    return request, [said, *notes]


def _misunderstandings(request: GenerationRequest, untouched: set[str]) -> list[str]:
    """Wishes that make no sense with T2V-Turbo."""
    about = {field.name: field.metadata.get("label", "") for field in dataclasses.fields(request)}
    notes = []
    if request.sampler != TURBO_SAMPLER and "sampler" not in untouched:
        notes.append(f"T2V-Turbo knows no sampler but {TURBO_SAMPLER}, which was used instead of {request.sampler}.")
    if request.steps > MOST_STEPS and "steps" not in untouched:
        notes.append(f"T2V-Turbo needs 4 to 8 steps: {GOOD_STEPS} were made instead of {request.steps}.")
    if not SCALES[0] <= request.cfg_scale <= SCALES[1] and "cfg_scale" not in untouched:
        notes.append(
            f"T2V-Turbo learned CFG scales from {SCALES[0]:g} to {SCALES[1]:g}: {request.cfg_scale:g} is none."
        )
    if request.draft > 1:
        notes.append("Draft was left out: T2V-Turbo's few steps differ too much.")
    if idle := [about[name] for name in _WITHOUT_EFFECT if name not in untouched]:
        notes.append(f"{', '.join(idle)}: of no effect with T2V-Turbo, which is not guided by two passes.")
    if split_tags(request.negative_prompt)[0].strip():
        notes.append("The negative prompt has no effect with T2V-Turbo.")
    return notes
