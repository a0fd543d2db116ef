"""Prompts as WebUI users write them: emphasis, BREAK and any length, as token ids and weights."""

import functools
import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..device import Place
from ..network.open_clip_import import open_clip_module
from ..network.text_encoder import TextEncoder

BEGIN, END, PAD = 49406, 49407, 0
CHUNK = 75
"""Tokens of a prompt that fit between begin and end."""
COMMA_BACKTRACK = 20
"""A chunk ends at its last comma if that is at most this many tokens back (the WebUI's default)."""
FACTORS = {"(": 1.1, "[": 1 / 1.1}
"""What one pair of brackets multiplies the weight by."""
MAX_WEIGHT = 100.0
"""Weights end here: a thousand nested brackets must not overflow half precision."""


@dataclass(frozen=True)
class Fragment:
    """A piece of the prompt that has one weight."""

    text: str
    weight: float


@dataclass(frozen=True)
class Chunk:
    """77 token ids and the weight of each."""

    ids: tuple[int, ...]
    weights: tuple[float, ...]


_SYNTAX = re.compile(r"\\([\\()\[\]])|:\s*([+-]?(?:\d+(?:\.\d*)?|\.\d+))\s*\)|([()\[\]])|\b(BREAK)\b")


def parse_emphasis(prompt: str) -> list[Fragment | None]:
    """Split `(word:1.3)`, `(word)`, `[word]` and escaped brackets into weighted pieces; None stands for BREAK.

    A bracket that is never closed counts to the end; one that was never opened is text.
    """
    pieces: list[tuple[str | None, float]] = []
    opened: dict[str, list[int]] = {"(": [], "[": []}
    position = 0
    for match in _SYNTAX.finditer(prompt):
        pieces.append((prompt[position : match.start()], 1.0))
        position = match.end()
        escaped, number, bracket, break_ = match.groups()
        opening = "[" if bracket == "]" else "("
        if bracket in opened:
            opened[bracket].append(len(pieces))
        elif not escaped and not break_ and opened[opening]:
            _scale(pieces, opened[opening].pop(), float(number) if number else FACTORS[opening])
        else:
            pieces.append((None if break_ else escaped or match[0], 1.0))
    pieces.append((prompt[position:], 1.0))
    for start, factor in ((start, FACTORS[opening]) for opening in opened for start in opened[opening]):
        _scale(pieces, start, factor)
    return list(_merged(pieces))


def _scale(pieces: list[tuple[str | None, float]], start: int, factor: float) -> None:
    """Multiply the weights from a piece on; empty pieces go, so that thousands of brackets stay quick."""
    scaled = [(text, _bounded(weight * factor)) for text, weight in pieces[start:] if text != ""]
    pieces[start:] = scaled


def _bounded(weight: float) -> float:
    return max(-MAX_WEIGHT, min(MAX_WEIGHT, weight))


def _merged(pieces: list[tuple[str | None, float]]) -> Iterator[Fragment | None]:
    """Join neighbours of equal weight: escapes and stray brackets must not split words."""
    for (is_break, weight), group in itertools.groupby(
        (piece for piece in pieces if piece[0] != ""), key=lambda piece: (piece[0] is None, piece[1])
    ):
        texts = [text for text, _ in group]
        if is_break:
            yield from [None] * len(texts)
        else:
            yield Fragment("".join(text for text in texts if text), weight)


@functools.cache
def _tokenizer() -> Any:
    return open_clip_module("tokenizer").SimpleTokenizer()


def _token_ids(text: str) -> list[int]:
    ids: list[int] = _tokenizer().encode(text)
    return ids


@functools.lru_cache(maxsize=8)
def chunks(prompt: str) -> tuple[Chunk, ...]:
    """Token ids and weights of a prompt: as many chunks of 77 as it needs, at least one.

    The last prompts are remembered: every plan that is tried asks for their length, and every video for their ids.

    A prompt of at most 75 tokens without syntax gets exactly the ids of the original.
    """
    result: list[Chunk] = []
    parts = parse_emphasis(prompt)
    for is_break, group in itertools.groupby(parts, key=lambda part: part is None):
        if is_break:
            continue
        tokens = [(i, part.weight) for part in group if part for i in _token_ids(part.text)]
        while len(tokens) > CHUNK:
            cut = _cut(tokens)
            result.append(_chunk(tokens[:cut]))
            tokens = tokens[cut:]
        if tokens:
            result.append(_chunk(tokens))
    return tuple(result) or (_chunk([]),)


def _cut(tokens: list[tuple[int, float]]) -> int:
    comma = _token_ids(",")[0]
    for i in range(CHUNK, CHUNK - COMMA_BACKTRACK, -1):
        if tokens[i - 1][0] == comma:
            return i
    return CHUNK


def _chunk(tokens: list[tuple[int, float]]) -> Chunk:
    ids = (BEGIN, *(i for i, _ in tokens), END)
    weights = (1.0, *(weight for _, weight in tokens), 1.0)
    padding = CHUNK + 2 - len(ids)
    return Chunk(ids + (PAD,) * padding, weights + (1.0,) * padding)


def tokenize(texts: list[str]) -> Tensor:
    """Plain texts, no syntax, cut at 75 tokens: ids [n, 77] as the original's tokenizer gives them."""
    plain = [[(i, 1.0) for i in _token_ids(text)[:CHUNK]] for text in texts]
    return torch.tensor([_chunk(tokens).ids for tokens in plain])


def encode_prompt(encoder: TextEncoder, prompt: str, place: Place | None = None) -> Tensor:
    """The features [1, 77 * chunks, width] that the UNet attends to.

    place: where to compute, if the encoder's weights wait elsewhere.
    """
    parts = chunks(prompt)
    features: Tensor = encoder(torch.tensor([part.ids for part in parts]), place)
    weights = torch.tensor([part.weights for part in parts], device=features.device, dtype=features.dtype)
    if bool((weights != 1).any()):
        weighted = features * weights[..., None]
        # As in the WebUI: emphasis must not change the overall level of a chunk.
        level, now = (values.mean((1, 2), keepdim=True) for values in (features, weighted))
        features = torch.where(now == 0, weighted, weighted * (level / now))
    return features.flatten(0, 1).unsqueeze(0)
