"""Writes a video's settings as text in AUTOMATIC1111's syntax, and reads that and the 2023 extension's comments."""

import dataclasses
import json
import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from .. import __version__
from ..modelscope.errors import RequestError
from ..modelscope.request import SOURCE
from .request import GenerationRequest

VERSION = f"text2video {__version__}"
NEGATIVE = "Negative prompt:"
SOURCE_KEY, HASH_KEY, IMAGES_KEY, MASK_KEY = "Source", "Source hash", "Images", "Mask"
"""Keys of the files that a video was made from. A person has to give them again."""
_ABOUT = {field.name: field for field in dataclasses.fields(GenerationRequest)}
_FIRST = ("steps", "sampler", "cfg_scale", "seed", "frames", "fps")
"""The fields that come first, in AUTOMATIC1111's order; the advanced ones follow."""
KEYS = {name: _ABOUT[name].metadata["key"] for name in (*_FIRST, *_ABOUT) if _ABOUT[name].metadata["key"]}
"""The keys of the request's fields that have one. Width and height share `Size`, and the prompts have no key."""
FOLDED: dict[str, Any] = {name: field.default for name, field in _ABOUT.items() if field.metadata["fold"]}
"""Fields that are left out if they have these values."""
OF_SOURCES = frozenset(name for name, field in _ABOUT.items() if field.metadata["fold"] == SOURCE)
"""Fields that have no effect without a source."""
OF_STRENGTH = ("strength", "strength_meaning")
"""Fields that are always named if a source is changed."""
NOTHING: Mapping[str, str] = MappingProxyType({})
OLD_KEYS = {"scale": "cfg_scale", "n_prompt": "negative_prompt"}
"""The 2023 extension's keys for some fields; its other keys are our fields' names."""
LEFT_OUT: dict[str, Any] = {"prompt": "", "negative_prompt": "", **FOLDED}
"""Values of fields that are left out of an infotext. For any other missing field the value is unknown."""
MAX_LENGTH = 1_000_000
"""Maximum length of an infotext in characters; the rest is ignored."""
# The WebUI's pattern, with limited keys: endless ones would take endless time.
_PAIR = re.compile(r'(\w[\w \-/]{1,60}):\s*("(?:\\.|[^\\"])+"|[^,]*)(?:,|$)')
_SIZE = re.compile(r"(\d{1,5})x(\d{1,5})")
_FEWEST_PAIRS = 3
"""Minimum number of pairs on the last line; with fewer, it belongs to the prompt, as in the WebUI."""


def write_infotext(request: GenerationRequest, model: str, about: Mapping[str, str] = NOTHING) -> str:
    """Return a request as text in the WebUI's syntax.

    Args:
        request: The request from which the video was made.
        model: The model's name.
        about: Further entries, which no field of the request holds.
    """
    pairs: dict[str, Any] = {}
    for name, key in KEYS.items():
        value = getattr(request, name)
        if _is_worth_writing(request, name, value):
            pairs[key] = value
        if name == "seed":
            pairs["Size"] = f"{request.width}x{request.height}"
    pairs |= {"Model": model, **about, "Version": VERSION}
    lines = [request.prompt]
    if request.negative_prompt:
        lines.append(f"{NEGATIVE} {request.negative_prompt}")
    lines.append(", ".join(f"{key}: {_quote(value)}" for key, value in pairs.items()))
    return "\n".join(lines)


def _is_worth_writing(request: GenerationRequest, name: str, value: Any) -> bool:
    """Return whether a field's value is not the one that a missing entry stands for, and has an effect."""
    if name in OF_SOURCES and not request.has_source:
        return False
    if name in OF_STRENGTH and request.source and not request.keeps_source:
        return True
    return name not in FOLDED or value != FOLDED[name]


def _quote(value: Any) -> str:
    text = repr(value).removesuffix(".0") if isinstance(value, float) else str(value)
    return json.dumps(text, ensure_ascii=False) if re.search(r"[,:\n\"]", text) else text


def read_infotext(text: str) -> dict[str, Any]:
    """Return the request's fields found in a text, and `model`. Unknown and invalid entries are left out."""
    lines, pairs = _divide(text)
    return fields_of_pairs(pairs) | _prompts(lines)


def read_sources(text: str) -> list[str]:
    """Return what a text says of the files that its video was made from, one entry for each kind."""
    _, pairs = _divide(text)
    names = [f"{pairs[SOURCE_KEY]} ({pairs.get(HASH_KEY, '?')})"] if SOURCE_KEY in pairs else []
    return names + [pairs[key] for key in (IMAGES_KEY, MASK_KEY) if key in pairs]


def _divide(text: str) -> tuple[list[str], dict[str, str]]:
    """Return the lines of the prompts, and the pairs of keys and values of the last line."""
    *lines, last = text[:MAX_LENGTH].strip().split("\n")
    found = _PAIR.findall(last)
    if len(found) < _FEWEST_PAIRS:
        lines, found = [*lines, last], []
    return lines, {key.strip(): _unquote(value.strip()) for key, value in found}


def fields_of_pairs(pairs: Mapping[str, str]) -> dict[str, Any]:
    """Return the request's fields, and `model`, for an infotext's pairs of keys and values. Each value is checked."""
    names = {key: name for name, key in KEYS.items()} | OLD_KEYS | {"Model": "model"}
    known = {*_ABOUT, "model"}
    fields = {names.get(key, key): value for key, value in pairs.items()}
    if size := _SIZE.fullmatch(fields.get("Size", "")):
        fields |= {"width": size[1], "height": size[2]}
    if fields.get("is_vid2vid") == "0":
        # The 2023 extension wrote a strength for every video.
        fields.pop("strength", None)
    found = _keep_valid({name: value for name, value in fields.items() if name in known})
    return LEFT_OUT | found if found else {}


def _unquote(value: str) -> str:
    try:
        return str(json.loads(value)) if value.startswith('"') else value
    except ValueError:
        return value


def _prompts(lines: list[str]) -> dict[str, str]:
    """Return the prompts in the lines before the pairs; everything after `Negative prompt:` is the negative prompt."""
    before, mark, after = ("\n" + "\n".join(lines)).partition(f"\n{NEGATIVE}")
    return {"prompt": before.strip(), "negative_prompt": after.strip()} if mark or before.strip("\n") else {}


def _keep_valid(fields: Mapping[str, Any]) -> dict[str, Any]:
    usable: dict[str, Any] = {}
    for name, value in fields.items():
        try:
            usable[name] = value if name == "model" else getattr(GenerationRequest(**{name: value}), name)
        except RequestError:
            continue
    # A request replaces the seed -1 by a random one; restored settings keep the -1.
    return usable | ({"seed": -1} if str(fields.get("seed")).strip() == "-1" else {})
