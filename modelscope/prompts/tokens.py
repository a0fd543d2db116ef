"""Splits prompts of any length into token chunks of 77 token ids, which the text encoder takes."""

import functools
import itertools
from dataclasses import dataclass

import torch
from torch import Tensor

from .emphasis import parse_emphasis
from .tokenizer import load_tokenizer

BEGIN, END, PAD = 49406, 49407, 0
"""Token ids of the begin and end of a prompt, and of padding."""
CHUNK_TOKENS = 75
"""Number of a prompt's tokens that fit between begin and end."""
COMMA_BACKTRACK = 20
"""A token chunk ends at its last comma if that is at most this many tokens back (the WebUI's default)."""

_WeightedTokens = list[tuple[int, float]]


@dataclass(frozen=True)
class TokenChunk:
    """77 token ids and the weight of each."""

    ids: tuple[int, ...]
    weights: tuple[float, ...]


@functools.lru_cache(maxsize=8)
def split_into_chunks(prompt: str) -> tuple[TokenChunk, ...]:
    """Parse a prompt into as many token chunks as it needs, at least one.

    A prompt of at most 75 tokens without syntax gets exactly the ids of the original.

    Recent prompts are cached: every plan that is tried asks for their length, and every video for their ids.
    """
    chunks: list[TokenChunk] = []
    fragments = parse_emphasis(prompt)
    for is_break, group in itertools.groupby(fragments, key=lambda fragment: fragment is None):
        if is_break:
            continue
        tokens = [(i, fragment.weight) for fragment in group if fragment for i in _token_ids(fragment.text)]
        while len(tokens) > CHUNK_TOKENS:
            cut = _find_cut(tokens)
            chunks.append(_fill(tokens[:cut]))
            tokens = tokens[cut:]
        if tokens:
            chunks.append(_fill(tokens))
    return tuple(chunks) or (_fill([]),)


def tokenize(texts: list[str]) -> Tensor:
    """Return the ids [n, 77] of plain texts, without syntax and cut at 75 tokens, as the original's tokenizer does."""
    plain: list[_WeightedTokens] = [[(i, 1.0) for i in _token_ids(text)[:CHUNK_TOKENS]] for text in texts]
    return torch.tensor([_fill(tokens).ids for tokens in plain])


def _token_ids(text: str) -> list[int]:
    ids: list[int] = load_tokenizer().encode(text)
    return ids


def _find_cut(tokens: _WeightedTokens) -> int:
    """Return how many tokens go into the next chunk: up to a comma near its end, or all that fit."""
    comma = _token_ids(",")[0]
    for i in range(CHUNK_TOKENS, CHUNK_TOKENS - COMMA_BACKTRACK, -1):
        if tokens[i - 1][0] == comma:
            return i
    return CHUNK_TOKENS


def _fill(tokens: _WeightedTokens) -> TokenChunk:
    """Put at most 75 tokens between begin and end, and padding after them."""
    ids = (BEGIN, *(i for i, _ in tokens), END)
    weights = (1.0, *(weight for _, weight in tokens), 1.0)
    padding = CHUNK_TOKENS + 2 - len(ids)
    return TokenChunk(ids + (PAD,) * padding, weights + (1.0,) * padding)
