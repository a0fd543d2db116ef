"""Which models there are: the folders of the 2023 extension, and the bundled miniature."""

import contextlib
import os
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import NamedTuple

from ...miniature.recipe import MODEL_FOLDER
from ...modelscope.checkpoints.find_parts import SNAPSHOTS, WEIGHTS, Library, is_model
from ...modelscope.checkpoints.parts import PARTS
from ...modelscope.config import FilesConfig
from ...modelscope.errors import ModelError
from ...modelscope.escape import logger, visible
from ..disk import split_folders
from ..host import Host
from ..settings import FURTHER_MODELS

log = logger(__name__)
BASE_NAME = "<modelscope>"
"""What the 2023 extension called the model in models/ModelScope/t2v."""
SINGLE_FILES = (".safetensors", ".ckpt")
"""Endings of files that may be whole models."""
PART_FOLDERS = tuple(part.folder for part in PARTS)
MINIATURE_NAME = "miniature (bundled demo)"


class ModelFolder(NamedTuple):
    """A model a person can choose: a folder, or one file. library: what may be taken from outside of it."""

    name: str
    path: Path
    library: Library | None = None


def base_folder(models: Path) -> Path:
    """Where the base model's files belong."""
    return models / "ModelScope" / "t2v"


def further_folder(models: Path) -> Path:
    """Where further models' folders belong."""
    return models / "text2video"


def find_models(host: Host) -> list[ModelFolder]:
    """All models in the host's models folder and in those of the setting, the miniature last."""
    models = host.models_folder()
    base = base_folder(models)
    found = {BASE_NAME: base} if is_model(base) else {}
    roots = [further_folder(models), *_further(host)]
    for root in roots:
        for path in _models_in(root):
            if path not in found.values():
                found[_free_name(path, root, found)] = path
    lenders = (*found.values(), *dict.fromkeys(path.parent for path in found.values()))
    named = [ModelFolder(name, path, Library(_top(path, (models, *roots)), lenders)) for name, path in found.items()]
    return [*named, ModelFolder(MINIATURE_NAME, MODEL_FOLDER)]


def _top(model: Path, roots: Sequence[Path]) -> Path:
    """No file is taken from outside of it. In the hub's cache a model's files are links to what lies beside."""
    if model.parent.name == SNAPSHOTS:
        return model.parent.parent
    return next(root for root in roots if model.is_relative_to(root))


def model_places(host: Host) -> list[Path]:
    """All folders in which models are made: those in which they lie, and their own; links are not followed."""
    models = host.models_folder()
    roots = [further_folder(models), *_further(host)]
    below = [path for root in roots for path in _entries(root) if _is_folder(path) and not path.is_symlink()]
    return list(dict.fromkeys([models, base_folder(models), *roots, *below, host.lora_folder()]))


def _further(host: Host) -> tuple[Path, ...]:
    return split_folders(host.setting(FURTHER_MODELS))


def _models_in(root: Path) -> list[Path]:
    """Models right below a folder, as folders or single files, and those in the folders there."""
    found = []
    for path in _entries(root):
        if _is_folder(path):
            found += [path] if is_model(path) and not _only_lends(path) else []
            found += [
                one for one in _entries(path) if _is_folder(one) and one.name not in PART_FOLDERS and is_model(one)
            ]
        elif path.suffix.lower() in SINGLE_FILES:
            found.append(path)
    return found


def _is_folder(path: Path) -> bool:
    """Not Path's own, which ends in an error in folders that may be listed and not entered."""
    return os.path.isdir(path)  # noqa: PTH112


def _only_lends(folder: Path) -> bool:
    """Whether nothing but an autoencoder lies there, for the models in its folders."""
    stem = Path(FilesConfig().ckpt_autoencoder).stem
    weights = [path for path in _entries(folder) if path.suffix.lower() in WEIGHTS]
    return bool(weights) and all(path.stem == stem for path in weights)


def _free_name(path: Path, root: Path, taken: Collection[str]) -> str:
    """Where the model lies below the root; more of its path if another has that name already."""
    inside = path.relative_to(root)
    name = (inside.with_suffix("") if path.is_file() else inside).as_posix()
    names = (name, f"{root.name}/{name}", f"{root.name}/{inside.as_posix()}", str(path))
    return next(one for one in names if one not in taken)


def model_names(host: Host) -> list[str]:
    """The names of all models."""
    return [model.name for model in find_models(host)]


def model_named(host: Host, name: str) -> ModelFolder:
    """The model of that name. Raises ModelError that lists the others."""
    models = find_models(host)
    for model in models:
        if model.name == name:
            return model
    known = ", ".join(model.name for model in models)
    raise ModelError(
        f"The model {name!r} is not there any more, or never was. There are: {known}. Choose one of them, or put the "
        f"model's files into {base_folder(host.models_folder())} and refresh the list."
    )


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if not path.name.startswith(".") and _can_be_shown(path))
    except OSError:
        return []


def _can_be_shown(path: Path) -> bool:
    """A name that is no Unicode, from an archive made elsewhere, cannot be sent to any page; nor what a page obeys."""
    if visible(path.name) != path.name:
        log.warning("text2video leaves out the model folder %r: rename it so that it can be shown", path.name)
        return False
    return True


def make_folders(models: Path) -> None:
    """The folders into which people put weights, so that they are found; no matter if that is not allowed."""
    for folder in (base_folder(models), further_folder(models)):
        with contextlib.suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True)
