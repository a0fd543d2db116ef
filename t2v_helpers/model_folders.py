"""Which models there are: the folders of the 2023 extension, and the bundled miniature."""

import contextlib
import logging
import os
from pathlib import Path
from typing import NamedTuple

from ..miniature.recipe import MODEL_FOLDER
from ..modelscope.errors import ModelError

log = logging.getLogger(__name__)
BASE_NAME = "<modelscope>"
"""What the 2023 extension called the model in models/ModelScope/t2v."""
MINIATURE_NAME = "miniature (bundled demo)"
_WEIGHTS = (".pth", ".safetensors", ".bin", ".ckpt")


class ModelFolder(NamedTuple):
    """A model a person can choose."""

    name: str
    path: Path


def base_folder(models: Path) -> Path:
    """Where the base model's files belong."""
    return models / "ModelScope" / "t2v"


def further_folder(models: Path) -> Path:
    """Where further models' folders belong."""
    return models / "text2video"


def find_models(models: Path) -> list[ModelFolder]:
    """All models below the WebUI's models folder, the miniature last."""
    base = base_folder(models)
    found = [ModelFolder(BASE_NAME, base)] if _has_weights(base) else []
    found += [ModelFolder(path.name, path) for path in _folders(further_folder(models)) if _has_weights(path)]
    return [*found, ModelFolder(MINIATURE_NAME, MODEL_FOLDER)]


def model_names(models: Path) -> list[str]:
    """The names of all models."""
    return [model.name for model in find_models(models)]


def model_named(models: Path, name: str) -> ModelFolder:
    """The model of that name. Raises ModelError that lists the others."""
    for model in find_models(models):
        if model.name == name:
            return model
    known = ", ".join(model_names(models))
    raise ModelError(
        f"The model {name!r} is not there any more, or never was. There are: {known}. Choose one of them, or put the "
        f"model's files into {base_folder(models)} and refresh the list."
    )


def _has_weights(folder: Path) -> bool:
    try:
        return any(name.endswith(_WEIGHTS) for name in os.listdir(folder))
    except OSError:
        return False


def _folders(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if path.is_dir() and _can_be_shown(path))
    except OSError:
        return []


def _can_be_shown(path: Path) -> bool:
    """A name that is no Unicode, from an archive made elsewhere, cannot be sent to any page."""
    try:
        path.name.encode()
    except UnicodeEncodeError:
        log.warning("text2video leaves out the model folder %r: rename it so that it can be shown", path.name)
        return False
    return True


def make_folders(models: Path) -> None:
    """The folders into which people put weights, so that they are found; no matter if that is not allowed."""
    for folder in (base_folder(models), further_folder(models)):
        with contextlib.suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True)
