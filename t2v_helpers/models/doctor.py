"""Reports what each part of a model consists of, or what is wrong with it and what to do."""

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from ...modelscope.checkpoints.find_parts import Library, find_library, find_part, read_model_config
from ...modelscope.checkpoints.load import check_parts_agree, load_part, read_source
from ...modelscope.checkpoints.parts import PARTS, Part, detect_format
from ...modelscope.checkpoints.weight_file import verify
from ...modelscope.config import CONFIGURATION, ModelConfig
from ...modelscope.errors import ModelError, TextToVideoError, first_line
from ...modelscope.escape import logger
from ...modelscope.files import hash_file
from ...modelscope.memory.estimate import Clip, estimate_bytes
from ...modelscope.memory.plan import FAST, SMALLEST
from ...modelscope.model import outline
from ...modelscope.units import format_bytes
from ..host import Host
from ..places import Places, places
from .folders import ModelFolder
from .known import KNOWN, good_values

log = logger(__name__)
SAMPLE = (24, 256, 256)
"""Frames, height and width in pixels of the video for which the needed memory is reported."""


class Finding(NamedTuple):
    """One line of a diagnosis.

    subject: what the line is about; text: may contain unescaped names from files; valid: whether all is well.
    """

    subject: str
    text: str
    valid: bool = True


class Diagnosis(NamedTuple):
    """The findings about a model."""

    model: ModelFolder
    findings: tuple[Finding, ...]

    @property
    def valid(self) -> bool:
        """True if the model can be used."""
        return all(finding.valid for finding in self.findings)


def examine(host: Host, models: Sequence[ModelFolder], *, verify_files: bool = False) -> Iterator[Diagnosis]:
    """Examine models one after the other by loading them, without keeping any of them.

    Args:
        host: Provides the device on which models would run.
        models: The models to examine.
        verify_files: Whether to read every file completely and compare its checksums; this takes as long as the disk
            needs.
    """
    where = places(host)
    for model in models:
        yield Diagnosis(model, tuple(_examine_safely(model, where, verify_files=verify_files)))


def _examine_safely(model: ModelFolder, where: Places, *, verify_files: bool) -> Iterator[Finding]:
    """Examine a model. An unexpected error becomes a finding, so that other models are still examined."""
    try:
        yield from _examine_model(model, where, verify_files=verify_files)
    except Exception as error:
        log.exception("Unexpected error while examining %s", model.path)
        words = f"{model.path}: cannot be examined ({type(error).__name__}: {first_line(error)}). Please report it."
        yield Finding("model", words, valid=False)


def _examine_model(model: ModelFolder, where: Places, *, verify_files: bool) -> Iterator[Finding]:
    config = ModelConfig()
    try:
        config = read_model_config(model.path)
        good_values(model.path)
        yield Finding("configuration", _describe_config(model.path))
    except TextToVideoError as error:
        yield Finding("configuration", str(error), valid=False)
    library = model.library or find_library(model.path)
    parts = [_examine_part(part, model.path, config, library, verify_files=verify_files) for part in PARTS]
    if len({part.text for part in parts}) == 1 and not parts[0].valid:
        # All parts are in one file, and have the same error.
        parts = [Finding("all parts", parts[0].text, valid=False)]
    yield from parts
    if not all(finding.valid for finding in parts):
        return
    try:
        check_parts_agree(config)
        yield Finding("memory", _describe_memory(config, where))
    except TextToVideoError as error:
        yield Finding("parts", str(error), valid=False)


def _describe_config(model: Path) -> str:
    if not os.path.isdir(model):  # noqa: PTH112 - False for an invalid path, too
        return "built-in values of the 1.7B model"
    if (model / CONFIGURATION).exists():
        return CONFIGURATION
    return (
        "config.json of each part"
        if any(model.glob("*/config.json"))
        else f"built-in values of the 1.7B model, as there is no {CONFIGURATION}"
    )


def _examine_part(part: Part, model: Path, config: ModelConfig, library: Library, *, verify_files: bool) -> Finding:
    """Return the finding about a part."""
    try:
        source = find_part(part, model, config, library)
        tensors = read_source(source)
        load_part(part, source, config)
        size = sum(file.stat().st_size for file in source.files)
        looks = [_compare_checksums(file) for file in source.files] if verify_files else []
        if damage := next(filter(None, (look.damage for look in looks)), ""):
            return Finding(part.title, damage, valid=False)
    except TextToVideoError as error:
        return Finding(part.title, str(error), valid=False)
    except OSError as error:
        return Finding(
            part.title, f"{error.filename}: vanished during the check ({error.strerror}). Check again.", valid=False
        )
    how = detect_format(part, tensors)
    messages = [
        source.named.name if source.named.parent == model else str(source.named),
        "diffusers' layout" if how and how.by_diffusers else "original layout",
        source.files[0].suffix.removeprefix("."),
        format_bytes(size, 2),
        _find_precision(tensors),
    ]
    if not all(look.known for look in looks):
        messages.append("no known checksum to compare with")
    if source.lender:
        messages.append(f"borrowed from {source.lender}")
    return Finding(part.title, ", ".join(messages))


class _Comparison(NamedTuple):
    """The result of comparing a file's checksums.

    known: whether there was a checksum to compare with; damage: what does not match.
    """

    known: bool
    damage: str = ""


def _compare_checksums(path: Path) -> _Comparison:
    """Read a file that seems complete, and compare it with the checksums in it and with those of known files."""
    try:
        has_checksums = verify(path)
    except ModelError as error:
        return _Comparison(True, str(error))
    known = [file.sha256 for model in KNOWN for file in model.files if file.sha256 and file.size == path.stat().st_size]
    if known and not any(hash_file(path).startswith(digits) for digits in known):
        return _Comparison(True, f"{path}: has the size of a known file, but another SHA-256. Download it again.")
    return _Comparison(has_checksums or bool(known))


def _find_precision(tensors: dict[str, Tensor]) -> str:
    """Return the name of the precision that most of the numbers have."""
    values: Counter[str] = Counter()
    for tensor in tensors.values():
        values[str(tensor.dtype).removeprefix("torch.")] += tensor.numel()
    return values.most_common(1)[0][0]


def _describe_memory(config: ModelConfig, where: Places) -> str:
    model = outline(config, *where)
    frames, height, width = SAMPLE
    clip = Clip(frames, height // config.autoencoder.scale, width // config.autoencoder.scale)
    most, least = (format_bytes(estimate_bytes(model, plan, clip), 2) for plan in (FAST, SMALLEST))
    return f"{frames} frames of {width} x {height} need {most} on {where.model.device}; {least} with the smallest plan"
