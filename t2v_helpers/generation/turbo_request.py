"""Adapts a request to T2V-Turbo, if that is among its LoRAs."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from ...modelscope.memory.lora_deltas import LoraDeltas
from ...modelscope.units import format_count
from ..request import GenerationRequest

TURBO_SAMPLER, TURBO_STEPS, TURBO_SCALE = "LCM", 4, 7.5
MOST_STEPS, GOOD_STEPS = 16, 8
"""The largest number of steps that T2V-Turbo accepts, and the number beyond which more steps do not help."""
SCALES = (5.0, 15.0)
"""The range of guidance scales with which T2V-Turbo was distilled."""
_WITHOUT_EFFECT = ("eta", "cfg_rescale", "cfg_from", "cfg_until")


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
    steps_used = format_count(request.steps, "step")
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
