"""Says of each model what was found, part by part, or what is wrong with it and what to do."""

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from ...modelscope.checkpoints.find_parts import Library, around, find_part, model_config
from ...modelscope.checkpoints.load import check_parts_agree, load_part, read_source
from ...modelscope.checkpoints.parts import PARTS, Part, written
from ...modelscope.checkpoints.weight_file import verify
from ...modelscope.config import CONFIGURATION, ModelConfig
from ...modelscope.errors import ModelError, TextToVideoError, first_line
from ...modelscope.escape import logger
from ...modelscope.files import hash_file
from ...modelscope.memory.estimate import Clip, needed
from ...modelscope.memory.plan import FAST, SMALLEST
from ...modelscope.model import outline
from ...modelscope.units import format_bytes
from ..host import Host
from ..places import Places, places
from ..settings import VAE
from .folders import ModelFolder
from .known import KNOWN, good_values

log = logger(__name__)
SAMPLE = (24, 256, 256)
"""Frames, height and width of the base model, for which the memory is told."""


class Finding(NamedTuple):
    """One line of a diagnosis. subject: what it is about; text: may hold names from files, as they are."""

    subject: str
    text: str
    sound: bool = True


class Diagnosis(NamedTuple):
    """What is known of a model."""

    model: ModelFolder
    findings: tuple[Finding, ...]

    @property
    def sound(self) -> bool:
        """Whether the model can be used."""
        return all(finding.sound for finding in self.findings)


def examine(host: Host, models: Sequence[ModelFolder], *, thorough: bool = False) -> Iterator[Diagnosis]:
    """Look at one model after the other, as loading would, without keeping any.

    thorough: read all of every file and compare it with its checksums, which takes as long as the disk does.
    """
    where = places(*host.devices(), host.setting(VAE))
    for model in models:
        yield Diagnosis(model, tuple(_guarded(model, where, thorough=thorough)))


def _guarded(model: ModelFolder, where: Places, *, thorough: bool) -> Iterator[Finding]:
    """A model that cannot even be examined does not keep the others from it."""
    try:
        yield from _findings(model, where, thorough=thorough)
    except Exception as error:
        log.exception("Unexpected error while looking at %s", model.path)
        words = f"{model.path}: cannot be examined ({type(error).__name__}: {first_line(error)}). Please report it."
        yield Finding("model", words, sound=False)


def _findings(model: ModelFolder, where: Places, *, thorough: bool) -> Iterator[Finding]:
    config = ModelConfig()
    try:
        config = model_config(model.path)
        good_values(model.path)
        yield Finding("configuration", _described(model.path))
    except TextToVideoError as error:
        yield Finding("configuration", str(error), sound=False)
    library = model.library or around(model.path)
    parts = [_examined(part, model.path, config, library, thorough=thorough) for part in PARTS]
    if len({part.text for part in parts}) == 1 and not parts[0].sound:
        # One file, and what is wrong with all of it.
        parts = [Finding("all parts", parts[0].text, sound=False)]
    yield from parts
    if not all(finding.sound for finding in parts):
        return
    try:
        check_parts_agree(config)
        yield Finding("memory", _cost(config, where))
    except TextToVideoError as error:
        yield Finding("parts", str(error), sound=False)


def _described(model: Path) -> str:
    if not os.path.isdir(model):  # noqa: PTH112 - False for what is no path at all, too
        return "the 1.7B's, built in"
    if (model / CONFIGURATION).exists():
        return CONFIGURATION
    return (
        "config.json of each part" if any(model.glob("*/config.json")) else f"the 1.7B's, built in: no {CONFIGURATION}"
    )


def _examined(part: Part, model: Path, config: ModelConfig, library: Library, *, thorough: bool) -> Finding:
    """A part's line."""
    try:
        source = find_part(part, model, config, library)
        tensors = read_source(source)
        load_part(part, source, config)
        size = sum(file.stat().st_size for file in source.files)
        looks = [_compared(file) for file in source.files] if thorough else []
        if damage := next(filter(None, (look.damage for look in looks)), ""):
            return Finding(part.title, damage, sound=False)
    except TextToVideoError as error:
        return Finding(part.title, str(error), sound=False)
    except OSError as error:
        return Finding(part.title, f"{error.filename}: vanished meanwhile ({error.strerror}). Look again.", sound=False)
    how = written(part, tensors)
    said = [
        source.named.name if source.named.parent == model else str(source.named),
        "diffusers' layout" if how and how.by_diffusers else "original layout",
        source.files[0].suffix.removeprefix("."),
        format_bytes(size, 2),
        _precision(tensors),
    ]
    if not all(look.known for look in looks):
        said.append("no checksum known to compare with")
    if source.lender:
        said.append(f"borrowed from {source.lender}")
    return Finding(part.title, ", ".join(said))


class _Look(NamedTuple):
    """known: whether there was a checksum to compare with; damage: what does not match."""

    known: bool
    damage: str = ""


def _compared(path: Path) -> _Look:
    """What is wrong inside of a file that looks whole."""
    try:
        has_checksums = verify(path)
    except ModelError as error:
        return _Look(True, str(error))
    known = [file.sha256 for model in KNOWN for file in model.files if file.sha256 and file.size == path.stat().st_size]
    if known and not any(hash_file(path).startswith(digits) for digits in known):
        return _Look(True, f"{path}: has the size of a known file and another sha256. Download it again.")
    return _Look(has_checksums or bool(known))


def _precision(tensors: dict[str, Tensor]) -> str:
    """That of most of the numbers."""
    values: Counter[str] = Counter()
    for tensor in tensors.values():
        values[str(tensor.dtype).removeprefix("torch.")] += tensor.numel()
    return values.most_common(1)[0][0]


def _cost(config: ModelConfig, where: Places) -> str:
    model = outline(config, *where)
    frames, height, width = SAMPLE
    clip = Clip(frames, height // config.autoencoder.scale, width // config.autoencoder.scale)
    most, least = (format_bytes(needed(model, plan, clip), 2) for plan in (FAST, SMALLEST))
    return f"{frames} frames of {width} x {height} need {most} on {where.model.device}; {least} with the smallest plan"
