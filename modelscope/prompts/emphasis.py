"""Emphasis as WebUI users write it: `(word)`, `(word:1.3)`, `[word]`, escaped brackets, and BREAK."""

import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass

FACTORS = {"(": 1.1, "[": 1 / 1.1}
"""Factors by which one pair of brackets multiplies the weight."""
MAX_WEIGHT = 100.0
"""Limit of weights: a thousand nested brackets must not overflow half precision."""

_SYNTAX = re.compile(r"\\([\\()\[\]])|:\s*([+-]?(?:\d+(?:\.\d*)?|\.\d+))\s*\)|([()\[\]])|\b(BREAK)\b")


@dataclass(frozen=True)
class Fragment:
    """A text with one weight; 1 is no emphasis."""

    text: str
    weight: float


_Weighted = list[tuple[str | None, float]]
"""Texts and their weights, before neighbours are joined; None is BREAK."""


def parse_emphasis(prompt: str) -> list[Fragment | None]:
    """Split a prompt into fragments of one weight each; None stands for BREAK.

    A bracket that is never closed extends to the end of the prompt; a closing one without an opening one is text.
    """
    fragments: _Weighted = []
    opened: dict[str, list[int]] = {"(": [], "[": []}
    position = 0
    for match in _SYNTAX.finditer(prompt):
        fragments.append((prompt[position : match.start()], 1.0))
        position = match.end()
        escaped, number, bracket, break_ = match.groups()
        opening = "[" if bracket == "]" else "("
        if bracket in opened:
            opened[bracket].append(len(fragments))
        elif not escaped and not break_ and opened[opening]:
            _scale(fragments, opened[opening].pop(), float(number) if number else FACTORS[opening])
        else:
            fragments.append((None if break_ else escaped or match[0], 1.0))
    fragments.append((prompt[position:], 1.0))
    for start, factor in ((start, FACTORS[opening]) for opening in opened for start in opened[opening]):
        _scale(fragments, start, factor)
    return list(_join(fragments))


def _scale(fragments: _Weighted, start: int, factor: float) -> None:
    """Multiply the weights from one fragment on. Drop empty fragments, so that thousands of brackets stay quick."""
    scaled = [(text, _limit(weight * factor)) for text, weight in fragments[start:] if text != ""]
    fragments[start:] = scaled


def _limit(weight: float) -> float:
    return max(-MAX_WEIGHT, min(MAX_WEIGHT, weight))


def _join(fragments: _Weighted) -> Iterator[Fragment | None]:
    """Join neighbours of equal weight: escapes and stray brackets must not split words."""
    for (is_break, weight), group in itertools.groupby(
        (fragment for fragment in fragments if fragment[0] != ""),
        key=lambda fragment: (fragment[0] is None, fragment[1]),
    ):
        texts = [text for text, _ in group]
        if is_break:
            yield from [None] * len(texts)
        else:
            yield Fragment("".join(text for text in texts if text), weight)
