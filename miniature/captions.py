"""Captions for training: several phrasings of a label, some of them leaving a part unsaid."""

import torch

from .world import Label

TEMPLATES = (
    "a {colour} {shape} moving {direction}",
    "a {colour} {shape} moving {direction}",
    "{colour} {shape} moving {direction}",
    "a {colour} {shape} going {direction}",
    "{direction}ward moving {colour} {shape}",
)
PARTIAL = ("a {colour} {shape}", "a {shape} moving {direction}", "something {colour} moving {direction}", "a {shape}")


def choice(items: tuple[str, ...], generator: torch.Generator) -> str:
    """Return one of the items."""
    return items[int(torch.randint(len(items), (), generator=generator))]


def caption(label: Label, generator: torch.Generator, empty: float = 0.0, partial: float = 0.0) -> str:
    """Return a caption of the label; empty or partial with the given probabilities."""
    chance = float(torch.rand((), generator=generator))
    if chance < empty:
        return ""
    templates = PARTIAL if chance < empty + partial else TEMPLATES
    return choice(templates, generator).format(**vars(label))
