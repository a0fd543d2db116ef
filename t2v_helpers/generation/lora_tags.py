"""Tags in prompts that name LoRAs: <lora:name:weight>, as in the rest of the WebUI."""

import math
import re
from typing import NamedTuple

from ...modelscope.errors import RequestError
from ...modelscope.request import VideoRequest

STRONGEST = 10.0
"""The largest accepted weight: larger ones are typing errors."""
_TAG = re.compile(r"<(?P<kind>lora|lyco|hypernet):(?P<inside>[^<>]*)>", re.IGNORECASE)
"""Pattern for the tags that the WebUI knows; there, lyco means the same as lora."""


class LoraTag(NamedTuple):
    """A LoRA by name, and its weights for the text encoder and the UNet."""

    name: str
    text: float = 1.0
    unet: float = 1.0


class Prompts(NamedTuple):
    """A request's prompts without their tags, and the parsed tags.

    Args:
        prompt: The prompt as the model reads it.
        negative_prompt: The negative prompt as the model reads it.
        tags: The LoRAs that the prompt names.
        has_useless_tags: Whether the negative prompt names LoRAs, which has no effect.
    """

    prompt: str
    negative_prompt: str
    tags: list[LoraTag]
    has_useless_tags: bool = False


def split_prompts(request: VideoRequest) -> Prompts:
    """Take the tags out of both prompts. Raises RequestError for a tag that cannot be used."""
    (prompt, tags), (negative, useless) = map(split_tags, (request.prompt, request.negative_prompt))
    return Prompts(prompt, negative, tags, bool(useless))


def split_tags(prompt: str) -> tuple[str, list[LoraTag]]:
    """Divide a prompt into its text without tags and the parsed tags. Raises RequestError.

    As in the WebUI, a single weight is for both parts; of two weights, the first is for the text encoder. Weights may
    also be named by `te=` and `unet=`.
    """
    return _TAG.sub("", prompt), [_parse_tag(**match.groupdict(), tag=match[0]) for match in _TAG.finditer(prompt)]


def _parse_tag(kind: str, inside: str, tag: str) -> LoraTag:
    if kind.lower() == "hypernet":
        raise RequestError(f"{tag}: hypernetworks are for Stable Diffusion; this model only takes <lora:name:weight>.")
    name, *rest = (part.strip() for part in inside.split(":"))
    if not name:
        raise RequestError(f"{tag} names no LoRA. Write <lora:name:weight>.")
    if re.search(r"[\\/]", name) or name in {".", ".."}:
        raise RequestError(f"{tag}: give only the name of the LoRA's file, without folders or extension.")
    named = {key.strip(): value for key, mark, value in (part.partition("=") for part in rest) if mark}
    plain = [part for part in rest if "=" not in part]
    if named.keys() - {"te", "unet"} or len(plain) > 2:
        raise RequestError(f"{tag} cannot be read. Write <lora:name:weight>, or <lora:name:te=0.5:unet=1>.")
    text = _weight(tag, named.get("te", plain[0] if plain else "1"))
    unet = _weight(tag, named.get("unet", plain[1] if len(plain) > 1 else str(text)))
    return LoraTag(name, text, unet)


def _weight(tag: str, text: str) -> float:
    try:
        weight = float(text)
    except ValueError:
        raise RequestError(f"{tag}: the weight must be a number, not {text!r}. 0.5 to 1 is usual.") from None
    return check_weight(tag, weight)


def check_weight(what: str, weight: float) -> float:
    """Return a weight if it is plausible. Raises RequestError if it is too large or not finite."""
    if not math.isfinite(weight) or abs(weight) > STRONGEST:
        raise RequestError(
            f"{what}: the weight must be from {-STRONGEST:g} to {STRONGEST:g}, not {weight:g}. 0.5 to 1 is usual."
        )
    return weight
