"""Finds the LoRAs that a request's prompt names, and reads them."""

from pathlib import Path
from typing import NamedTuple

from ...modelscope.lora.join_loras import join_loras
from ...modelscope.lora.lora_file import read_lora
from ...modelscope.memory.lora_deltas import LoraDeltas
from ...modelscope.model import Model
from .lora_files import find_loras, lora_named
from .lora_tags import LoraTag, Prompts, check_weight


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
