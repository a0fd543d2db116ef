"""Writes a model anew, whatever its layout: the original's names, half precision, safetensors."""

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

from ...modelscope.checkpoints.find_parts import Source, around, find_part, model_config
from ...modelscope.checkpoints.load import check_parts_agree, load_part
from ...modelscope.checkpoints.parts import PARTS, VAE, Part
from ...modelscope.checkpoints.weight_file import read_tensors
from ...modelscope.config import CONFIGURATION, FilesConfig, ModelConfig, write_config
from ...modelscope.errors import ModelError, first_line, memory_errors
from .folders import ModelFolder, further_folder
from .known import good_values
from .staging import staged

ENDING = "-fp16"
"""What the new folder's name adds to the model's."""
AUTOENCODER_PREFIX = "first_stage_model."
"""Begins the names in the original's file."""
Say = Callable[[str], None]


def converted_folder(model: ModelFolder, models: Path) -> Path:
    """Where the new files go if nobody says: among the further models, so that they are found."""
    name = re.sub(r'[<>:"|?*/\\]+', "-", model.name).strip("- .")
    return further_folder(models) / (name + ENDING)


def convert(model: ModelFolder, goal: Path, say: Say) -> None:
    """Write all parts into a new folder, read them back, and only then give the folder its name.

    say: told what is being done. Raises ModelError, OutOfMemory; nothing is left behind then.
    """
    if os.path.lexists(goal):
        raise ModelError(f"{goal}: is there already. Choose another folder, or delete that one.")
    try:
        # Hidden until it is whole: half a model is none to choose.
        with memory_errors("converting the model", "Close other programs."), staged(goal) as folder:
            _written(model, folder, say)
            folder.rename(goal)
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or first_line(error)
        raise ModelError(
            f"{goal}: could not be written ({reason}). Is there space, and may you write there?"
        ) from error
    say(f"All parts were read back and are the same. The new model is {goal}.")


def _written(model: ModelFolder, staging: Path, say: Say) -> None:
    config = model_config(model.path)
    check_parts_agree(config)
    staging.mkdir()
    names = {part.file: Path(getattr(FilesConfig(), part.file)).stem + ".safetensors" for part in PARTS}
    for part in PARTS:
        say(f"{part.title}: {names[part.file]}")
        _write(staging / names[part.file], _halves(part, model, config))
    write_config(staging, replace(config, files=FilesConfig(**names), recommended=dict(good_values(model.path))))
    for name in names.values():
        # Of these, safetensors makes files that only their owner may read.
        shutil.copymode(staging / CONFIGURATION, staging / name)


def _halves(part: Part, model: ModelFolder, config: ModelConfig) -> dict[str, Tensor]:
    source = find_part(part, model.path, config, model.library or around(model.path))
    prefix = AUTOENCODER_PREFIX if part is VAE else ""
    found, sizes = {}, _sizes(source)
    for name, tensor in load_part(part, source, config, to_keep=True).state_dict().items():
        # What is mapped and gone ends the process.
        if _sizes(source) != sizes:
            raise ModelError(f"{source.named}: was changed while it was read. Check the file, then try again.")
        # Tensors may share memory or be views in the file; safetensors wants each by itself.
        half = tensor.to(torch.float16, memory_format=torch.contiguous_format, copy=True)
        if bool(half.isinf().any()) and not bool(tensor.isinf().any()):
            raise ModelError(
                f"{source.named}: {name} has numbers too large for half precision. It cannot be converted."
            )
        if bool(half.isnan().any()):
            raise ModelError(
                f"{source.named}: {name} has values that are no numbers. It is damaged; download it again."
            )
        found[prefix + name] = half
    return found


def _sizes(source: Source) -> list[int]:
    """Of the part's files; none where one is gone."""
    try:
        return [file.stat().st_size for file in source.files]
    except OSError:
        return []


def _write(path: Path, tensors: dict[str, Tensor]) -> None:
    _check_space(path, sum(tensor.numel() * tensor.element_size() for tensor in tensors.values()))
    save_file(tensors, path, metadata={"format": "pt"})
    back = read_tensors(path)
    if back.keys() != tensors.keys() or not all(torch.equal(back[name], x) for name, x in tensors.items()):
        raise ModelError(f"{path}: holds something else than was written. Check the disk, then try again.")


def _check_space(path: Path, size: int) -> None:
    free = shutil.disk_usage(path.parent).free
    if free < size:
        raise ModelError(f"{path}: needs {size / 1e9:.2f} GB, and the disk has {free / 1e9:.2f} GB free. Make room.")
