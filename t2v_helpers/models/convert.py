"""Writes a converted copy of a model in any layout: with the original's names, in half precision, as safetensors."""

import os
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from ...modelscope.checkpoints.find_parts import Source, find_library, find_part, read_model_config
from ...modelscope.checkpoints.load import check_parts_agree, load_part
from ...modelscope.checkpoints.parts import PARTS, VAE, Part
from ...modelscope.checkpoints.weight_file import read_tensors
from ...modelscope.config import CONFIGURATION, FilesConfig, ModelConfig, write_config
from ...modelscope.errors import ModelError, first_line, memory_errors
from ..disk import find_shortage
from .folders import ModelFolder, more_folder
from .known import good_values
from .staging import open_staging

ENDING = "-fp16"
"""Suffix of the new folder's name."""
AUTOENCODER_PREFIX = "first_stage_model."
"""Prefix of all names in the original's file of the autoencoder."""
Say = Callable[[str], None]


def default_goal(model: ModelFolder, models: Path) -> Path:
    """Return the default folder for the new files: among the other models, so that they are found."""
    name = re.sub(r'[<>:"|?*/\\]+', "-", model.name).strip("- .")
    return more_folder(models) / (name + ENDING)


def convert(model: ModelFolder, goal: Path, say: Say) -> None:
    """Write all parts into a new folder, read them back, and only then give the folder its name.

    Args:
        model: The model to read.
        goal: The folder to create.
        say: Called with messages about the progress.

    Raises:
        ModelError: The model cannot be read or the folder cannot be written. Nothing is left behind.
        OutOfMemory: There is too little memory. Nothing is left behind.
    """
    if os.path.lexists(goal):
        raise ModelError(f"{goal}: already exists. Choose another folder, or delete this one.")
    try:
        # Hidden until it is complete: nobody should choose half a model.
        with memory_errors("converting the model", "Close other programs."), open_staging(goal) as folder:
            _write_parts(model, folder, say)
            folder.rename(goal)
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or first_line(error)
        raise ModelError(
            f"{goal}: could not be written ({reason}). Check that there is space, and that you may write there."
        ) from error
    say(f"All parts were read back and are intact. The new model is {goal}.")


def _write_parts(model: ModelFolder, staging: Path, say: Say) -> None:
    config = read_model_config(model.path)
    check_parts_agree(config)
    staging.mkdir()
    names = {part.file: Path(getattr(FilesConfig(), part.file)).stem + ".safetensors" for part in PARTS}
    for part in PARTS:
        say(f"{part.title}: {names[part.file]}")
        _write(staging / names[part.file], _halve(part, model, config))
    write_config(staging, replace(config, files=FilesConfig(**names), recommended=dict(good_values(model.path))))
    for name in names.values():
        # safetensors creates files that only their owner may read.
        shutil.copymode(staging / CONFIGURATION, staging / name)


def _halve(part: Part, model: ModelFolder, config: ModelConfig) -> dict[str, Tensor]:
    source = find_part(part, model.path, config, model.library or find_library(model.path))
    prefix = AUTOENCODER_PREFIX if part is VAE else ""
    found, sizes = {}, _measure_files(source)
    for name, tensor in load_part(part, source, config, to_keep=True).state_dict().items():
        # Reading mapped bytes that are gone ends the process.
        if _measure_files(source) != sizes:
            raise ModelError(f"{source.named}: changed while it was being read. Check the file, then try again.")
        # Tensors may share memory or be views in the file; safetensors needs each to have its own memory.
        half = tensor.to(torch.float16, memory_format=torch.contiguous_format, copy=True)
        if bool(half.isinf().any()) and not bool(tensor.isinf().any()):
            raise ModelError(
                f"{source.named}: {name} has numbers too large for half precision. It cannot be converted."
            )
        if bool(half.isnan().any()):
            raise ModelError(
                f"{source.named}: {name} has values that are not numbers (NaN). It is damaged; download it again."
            )
        found[prefix + name] = half
    return found


def _measure_files(source: Source) -> list[int]:
    """Return the sizes of the part's files in bytes, or an empty list if one of them is gone."""
    try:
        return [file.stat().st_size for file in source.files]
    except OSError:
        return []


def _write(path: Path, tensors: dict[str, Tensor]) -> None:
    _check_space(path, sum(tensor.numel() * tensor.element_size() for tensor in tensors.values()))
    save_file(tensors, path, metadata={"format": "pt"})
    back = read_tensors(path)
    if back.keys() != tensors.keys() or not all(torch.equal(back[name], x) for name, x in tensors.items()):
        raise ModelError(f"{path}: does not contain what was written. Check the disk, then try again.")


def _check_space(path: Path, size: int) -> None:
    if shortage := find_shortage(path.parent, size):
        raise ModelError(f"{path}: {shortage}")
