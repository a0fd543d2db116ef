"""Finds the LoRAs that a request's prompt names, and adapts the request if T2V-Turbo is among them."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ...modelscope.lora.join_loras import join_loras
from ...modelscope.lora.lora_file import read_lora
from ...modelscope.memory.lora_deltas import LoraDeltas
from ...modelscope.model import Model
from ..request import GenerationRequest
from .lora_files import find_loras, lora_named
from .lora_tags import LoraTag, Prompts, check_weight

TURBO_SAMPLER, TURBO_STEPS, TURBO_SCALE = "LCM", 4, 7.5
MOST_STEPS, GOOD_STEPS = 16, 8
"""The largest number of steps that T2V-Turbo accepts, and the number beyond which more steps do not help."""
SCALES = (5.0, 15.0)
"""The range of guidance scales with which T2V-Turbo was distilled."""
_WITHOUT_EFFECT = ("eta", "cfg_rescale", "cfg_from", "cfg_until")


class LoraChoice(NamedTuple):
    """The LoRA files that a prompt names, with their weights. notes: what a person should know about the tags."""

    tags: dict[Path, LoraTag]
    notes: list[str]

    def read(self, model: Model) -> LoraDeltas:
        """Read the files and apply them at their weights. Raises ModelError."""
        return join_loras([read_lora(path, model).times(tag.unet, tag.text) for path, tag in self.tags.items()])


def choose_loras(folder: Path, prompts: Prompts) -> LoraChoice:
    """Find the files that the prompts' tags name. Raises RequestError."""
    tags: dict[Path, LoraTag] = {}
    notes = []
    found = find_loras(folder) if prompts.tags else {}
    for tag in prompts.tags:
        path = lora_named(found, tag.name)
        if path in tags:
            tag = _add_weights(tags[path], tag)  # noqa: PLW2901 - the sum of both
            notes.append(f"The LoRA {tag.name!r} is named more than once: its weights add up to {tag.unet:g}.")
        tags[path] = tag
    if prompts.has_useless_tags:
        notes.append(
            "LoRAs have no effect in the negative prompt. Name them in the prompt instead; a weight may be negative."
        )
    return LoraChoice(tags, notes)


def _add_weights(first: LoraTag, second: LoraTag) -> LoraTag:
    what = f"The LoRA {second.name!r}, named more than once"
    text, unet = (check_weight(what, one + other) for one, other in zip(first[1:], second[1:], strict=True))
    return LoraTag(second.name, text, unet)


def adapt_request(
    request: GenerationRequest, loras: LoraDeltas, recommended: Mapping[str, Any]
) -> tuple[GenerationRequest, list[str]]:
    """Adapt a request to its LoRAs: T2V-Turbo needs its own sampler, steps and guidance scale.

    Args:
        request: The request, without tags.
        loras: The LoRAs that its tags name.
        recommended: The model's recommended values. A field that still has one was not chosen by a person.

    Returns:
        The request, and what a person should know about the changes.
    """
    if not loras.is_turbo:
        notes = ["The sampler LCM is meant for T2V-Turbo, whose LoRA the prompt does not name."]
        return request, notes if request.sampler == TURBO_SAMPLER else []
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
    steps_used = f"{request.steps} step{'s' * (request.steps != 1)}"
    summary = f"T2V-Turbo: {request.sampler}, {steps_used}, CFG scale {request.cfg_scale:g}, one pass per step."
    return request, [summary, *notes]


def _misunderstandings(request: GenerationRequest, untouched: set[str]) -> list[str]:
    """Return a sentence for each choice of a person's that makes no sense with T2V-Turbo."""
    about = {field.name: field.metadata.get("label", "") for field in dataclasses.fields(request)}
    notes = []
    if request.sampler != TURBO_SAMPLER and "sampler" not in untouched:
        notes.append(
            f"T2V-Turbo works only with the sampler {TURBO_SAMPLER}, which was used instead of {request.sampler}."
        )
    if request.steps > MOST_STEPS and "steps" not in untouched:
        notes.append(f"T2V-Turbo needs 4 to 8 steps: {GOOD_STEPS} were used instead of {request.steps}.")
    if not SCALES[0] <= request.cfg_scale <= SCALES[1] and "cfg_scale" not in untouched:
        notes.append(
            f"T2V-Turbo learned CFG scales from {SCALES[0]:g} to {SCALES[1]:g}: "
            f"{request.cfg_scale:g} is outside that range."
        )
    if request.draft > 1:
        notes.append("Draft was turned off: T2V-Turbo's few steps differ too much from each other.")
    if idle := [about[name] for name in _WITHOUT_EFFECT if name not in untouched]:
        notes.append(f"{', '.join(idle)}: no effect with T2V-Turbo, which makes only one pass per step.")
    if request.negative_prompt.strip():
        notes.append("The negative prompt has no effect with T2V-Turbo.")
    return notes
