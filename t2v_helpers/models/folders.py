"""Finds the models that there are: in the folders of the 2023 extension, and the bundled miniature."""

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
"""The name that the 2023 extension gave to the model in models/ModelScope/t2v."""
SINGLE_FILES = (".safetensors", ".ckpt")
"""Extensions of files that may be whole models."""
PART_FOLDERS = tuple(part.folder for part in PARTS)
MINIATURE_NAME = "miniature (bundled demo)"


class ModelFolder(NamedTuple):
    """A model that a person can choose: a folder, or one file.

    library: other folders in which its parts may be.
    """

    name: str
    path: Path
    library: Library | None = None


def base_folder(models: Path) -> Path:
    """Return the folder in which the base model's files belong."""
    return models / "ModelScope" / "t2v"


def more_folder(models: Path) -> Path:
    """Return the folder in which all other models' folders belong."""
    return models / "text2video"


def find_models(host: Host) -> list[ModelFolder]:
    """Return all models in the host's models folder and in the folders of the setting; the miniature comes last."""
    models = host.models_folder()
    base = base_folder(models)
    found = {BASE_NAME: base} if is_model(base) else {}
    roots = model_roots(host)
    for root in roots:
        for path in _models_in(root):
            if path not in found.values():
                found[_free_name(path, root, found)] = path
    lenders = (*found.values(), *dict.fromkeys(path.parent for path in found.values()))
    named = [ModelFolder(name, path, Library(_top(path, (models, *roots)), lenders)) for name, path in found.items()]
    return [*named, ModelFolder(MINIATURE_NAME, MODEL_FOLDER)]


def _top(model: Path, roots: Sequence[Path]) -> Path:
    """Return the folder outside which no file of a model is read.

    In the hub's cache, files are links to a folder next to the snapshots.
    """
    if model.parent.name == SNAPSHOTS:
        return model.parent.parent
    return next(root for root in roots if model.is_relative_to(root))


def list_places(host: Host) -> list[Path]:
    """Return all folders into which models are written: the models' own and those that contain them.

    Links are not followed.
    """
    models = host.models_folder()
    roots = model_roots(host)
    below = [path for root in roots for path in entries(root) if _is_folder(path) and not path.is_symlink()]
    return list(dict.fromkeys([models, base_folder(models), *roots, *below, host.lora_folder()]))


def model_roots(host: Host) -> list[Path]:
    """Return the folders whose subfolders are models."""
    return [more_folder(host.models_folder()), *split_folders(host.setting(FURTHER_MODELS))]


def _models_in(root: Path) -> list[Path]:
    """Return the models directly in a folder, as folders or single files, and those in its subfolders."""
    found = []
    for path in entries(root):
        if _is_folder(path):
            found += [path] if is_model(path) and not _only_lends(path) else []
            found += [
                one for one in entries(path) if _is_folder(one) and one.name not in PART_FOLDERS and is_model(one)
            ]
        elif path.suffix.lower() in SINGLE_FILES:
            found.append(path)
    return found


def _is_folder(path: Path) -> bool:
    """Return whether a path is a folder. Path.is_dir raises an error in folders that may be listed but not entered."""
    return os.path.isdir(path)  # noqa: PTH112


def _only_lends(folder: Path) -> bool:
    """Return whether the only weights in a folder are an autoencoder's, for the models in its subfolders."""
    stem = Path(FilesConfig().ckpt_autoencoder).stem
    weights = [path for path in entries(folder) if path.suffix.lower() in WEIGHTS]
    return bool(weights) and all(path.stem == stem for path in weights)


def _free_name(path: Path, root: Path, taken: Collection[str]) -> str:
    """Return a model's path below the root as its name, or more of its path if another model has that name."""
    inside = path.relative_to(root)
    name = (inside.with_suffix("") if path.is_file() else inside).as_posix()
    names = (name, f"{root.name}/{name}", f"{root.name}/{inside.as_posix()}", str(path))
    return next(one for one in names if one not in taken)


def list_model_names(host: Host) -> list[str]:
    """Return the names of all models."""
    return [model.name for model in find_models(host)]


def find_model(host: Host, name: str) -> ModelFolder:
    """Return the host's model with this name. Raises ModelError, which lists the others, if there is none."""
    return find_named(host, find_models(host), name)


def find_named(host: Host, models: Sequence[ModelFolder], name: str) -> ModelFolder:
    """Return the one of these models with this name. Raises ModelError, which lists the others, if there is none."""
    for model in models:
        if model.name == name:
            return model
    known = ", ".join(model.name for model in models)
    raise ModelError(
        f"There is no model {name!r}. Choose one of these: {known}. Or put the model's files into "
        f"{base_folder(host.models_folder())} and refresh the list."
    )


def entries(folder: Path) -> list[Path]:
    """Return what is in a folder and can be shown to a person, sorted; nothing if the folder cannot be listed."""
    try:
        return sorted(path for path in folder.iterdir() if not path.name.startswith(".") and _can_be_shown(path))
    except OSError:
        return []


def _can_be_shown(path: Path) -> bool:
    """Return whether a page can show a name: it is valid Unicode without characters that a page would obey."""
    if visible(path.name) != path.name:
        log.warning("text2video leaves out the model folder %r: rename it so that it can be shown", path.name)
        return False
    return True


def make_folders(models: Path) -> None:
    """Create the folders into which people put weights, so that they find them. Errors are ignored."""
    for folder in (base_folder(models), more_folder(models)):
        with contextlib.suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True)
