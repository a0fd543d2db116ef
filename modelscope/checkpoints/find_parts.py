"""Finds the files of a model's parts: in the original's layout, in diffusers' folders, or under other names."""

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ..config import CONFIGURATION, ModelConfig, read_config
from ..errors import ModelError, first_line, shorten
from ..json_files import read_json
from .diffusers_config import has_part_configs, read_diffusers_config
from .parts import PARTS, UNET, VAE, Part, detect_format
from .weight_file import read_tensors

WEIGHTS = (".safetensors", ".pth", ".bin", ".ckpt", ".pt")
"""Extensions of weight files, the preferred ones first."""
SNAPSHOTS = "snapshots"
"""The folder of the hub's cache that holds a model's versions."""
MAX_SHARDS = 1000
"""Maximum number of files that a part may be split into."""
UNFINISHED = (".crdownload", ".part", ".partial", ".download", ".opdownload", ".tmp")
"""Extensions that browsers add to the name of a file while they download it."""


class Library(NamedTuple):
    """Folders in which a model's parts may be found, besides its own.

    root: no file outside this folder is read; lenders: folders of other models.
    """

    root: Path
    lenders: tuple[Path, ...] = ()


class Source(NamedTuple):
    """The file of a part, or the files into which it is split.

    named: the file that errors name; lender: the folder of the model that the part is borrowed from, if it is.
    """

    named: Path
    files: tuple[Path, ...]
    lender: Path | None = None


def find_library(folder: Path) -> Library:
    """Return the library of a model that was given by its path: the folder above it, with its other models."""
    above = Path(os.path.abspath(folder)).parent
    # In the hub's cache, a model's files are links to a folder next to its snapshots.
    root = above.parent if above.name == SNAPSHOTS else above
    return Library(root, (above, *_list_folders(above)))


def read_model_config(model: Path) -> ModelConfig:
    """Return the configuration in configuration.json, else that in diffusers' files, else the 1.7B's.

    Raises:
        ModelError: A file cannot be read, or is not a configuration.
    """
    if not os.path.exists(model):  # noqa: PTH110 - False for an invalid path, too
        return ModelConfig()
    folder = model.parent if model.is_file() else model
    if not (folder / CONFIGURATION).exists() and has_part_configs(folder):
        return read_diffusers_config(folder)
    return read_config(folder)


def is_model(folder: Path) -> bool:
    """Return whether a folder holds weight files where a model's folder has them."""
    return _has_weights(folder) or _has_weights(folder / "unet")


def _has_weights(folder: Path) -> bool:
    return any(name.lower().endswith(WEIGHTS) for name in _list_names(folder))


def find_part(part: Part, model: Path, config: ModelConfig, library: Library) -> Source:
    """Return the files of a part. A missing autoencoder is borrowed from another model: all models have the same one.

    Args:
        part: The part to find.
        model: The model's folder, or its file if all parts are in one file.
        config: The model's configuration, which names files.
        library: Other folders to search.

    Raises:
        ModelError: The part is missing or cannot be read.
    """
    unread: list[ModelError] = []
    if os.path.isfile(model):  # noqa: PTH113 - False for an invalid path, too
        own = _find_in_file(part, model, library)
    else:
        _check_folder(model)
        own = _find_sources(part, model, config, library, unread)
    if found := next(own, None):
        return found
    if part is VAE and (lent := next(_find_lent(config, library), None)):
        return lent
    raise _explain_missing(part, model, config, unread)


def _find_in_file(part: Part, model: Path, library: Library) -> Iterator[Source]:
    """Yield the model's single file, unless the autoencoder is asked for and not in it. Raises ModelError."""
    if model.suffix.lower() not in WEIGHTS:
        raise ModelError(f"{model}: is a file, but not a weight file. Choose the folder with the model's files.")
    names = read_tensors(_check_inside(model, library.root))
    if part is not VAE or detect_format(VAE, names) or not detect_format(UNET, names):
        yield Source(model, (model,))


def _find_lent(config: ModelConfig, library: Library) -> Iterator[Source]:
    """Yield other models' autoencoders of the same shape; models that cannot be read are skipped."""
    for lender in library.lenders:
        with contextlib.suppress(ModelError, OSError):
            theirs = read_model_config(lender)
            if theirs.autoencoder == config.autoencoder:
                for source in _find_sources(VAE, lender, theirs, library, []):
                    yield source._replace(lender=lender)


def _check_folder(folder: Path) -> None:
    """Check that a folder can be listed. Raises ModelError."""
    try:
        os.listdir(folder)
    except FileNotFoundError as error:
        raise ModelError(
            f"{folder}: there is no such folder. Put the model's files there, or choose another folder."
        ) from error
    except (OSError, ValueError) as error:
        raise ModelError(
            f"{folder}: cannot be read ({error}). Choose a folder that you have permission to read."
        ) from error


def _find_sources(
    part: Part, folder: Path, config: ModelConfig, library: Library, unread: list[ModelError]
) -> Iterator[Source]:
    """Yield the files in a folder that may hold a part, the most likely ones first.

    unread: collects the errors of files under other names.
    """
    for path in _list_twins(folder / getattr(config.files, part.file)):
        # False for a path that cannot be examined, too.
        if os.path.isfile(path):  # noqa: PTH113
            yield Source(path, (_check_inside(path, library.root, folder),))
    for path in _find_diffusers_files(part, folder / part.folder):
        yield Source(path, tuple(_check_inside(file, library.root, folder) for file in _list_shards(path)))
    yield from _find_by_content(part, folder, config, library, unread)


def _list_twins(path: Path) -> tuple[Path, ...]:
    """Return a path with the extension .safetensors, and the path itself; nothing for an invalid file name."""
    try:
        return path.with_suffix(".safetensors"), path
    except ValueError:
        return ()


def _find_diffusers_files(part: Part, folder: Path) -> Iterator[Path]:
    """Yield a part's files in diffusers' folder: half precision before single, whole files before split ones."""
    for ending in WEIGHTS:
        for variant in (".fp16", ""):
            for stem in part.stems:
                names = f"{stem}{variant}{ending}", f"{stem}{ending}.index{variant}.json"
                yield from (folder / name for name in names if os.path.isfile(folder / name))  # noqa: PTH113


def _list_shards(path: Path) -> tuple[Path, ...]:
    """Return the files that an index lists, or the path itself if it is not an index. Raises ModelError."""
    if path.suffix != ".json":
        return (path,)
    try:
        names = {_check_beside(name) for name in read_json(path)["weight_map"].values()}
        if not names:
            raise ValueError("it lists no files")
        if len(names) > MAX_SHARDS:
            raise ValueError(f"it lists more than {MAX_SHARDS} files")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        words = first_line(error)
        raise ModelError(f"{path}: is not an index of weight files ({words}). Download it again.") from error
    # False for an invalid path, too.
    missing = sorted(name for name in names if not os.path.isfile(path.parent / name))  # noqa: PTH113
    if missing:
        raise ModelError(
            f"{path}: lists {len(names)} files, but these are missing: {shorten(missing, 4)}. Download them too."
        )
    return tuple(path.parent / name for name in sorted(names))


def _check_beside(name: Any) -> str:
    if not isinstance(name, str) or Path(name).name != name:
        raise ValueError("it lists something other than files in its own folder")
    return name


def _find_by_content(
    part: Part, folder: Path, config: ModelConfig, library: Library, unread: list[ModelError]
) -> Iterator[Source]:
    """Yield files with other names that hold the part."""
    taken = {Path(getattr(config.files, other.file)).stem for other in PARTS if other is not part}
    names = (name for name in _list_names(folder) if name.lower().endswith(WEIGHTS) and Path(name).stem not in taken)
    files = [folder / name for name in names if os.path.isfile(folder / name)]  # noqa: PTH113
    for path in sorted(files, key=lambda path: WEIGHTS.index(path.suffix.lower())):
        try:
            if detect_format(part, read_tensors(_check_inside(path, library.root, folder))):
                yield Source(path, (path,))
        except ModelError as error:
            unread.append(error)


def _check_inside(path: Path, *roots: Path) -> Path:
    """Return the path if it is below one of the roots after links are resolved. Raises ModelError."""
    real = os.path.realpath(path)
    for root in roots:
        # ValueError: the paths are on different drives.
        with contextlib.suppress(ValueError):
            top = os.path.realpath(root)
            if os.path.commonpath([top, real]) == top:
                return path
    raise ModelError(
        f"{path}: points to {real}, which is outside {roots[0]}. Put the file into the model's folder, or link the "
        f"whole folder instead of the file. If {CONFIGURATION} names this path, delete {CONFIGURATION}."
    )


def _explain_missing(part: Part, model: Path, config: ModelConfig, unread: list[ModelError]) -> ModelError:
    where, name = _expected_place(part, model, config)
    present = _list_names(where)
    remedy = "Download it into this folder."
    if part is VAE:
        remedy = "Download it into this folder, or install another model that has one; that one is then used."
    if growing := next((one for one in present if one.startswith(name) and one.endswith(UNFINISHED)), None):
        remedy = f"{growing} is an unfinished download. Wait until it has finished, or start it again."
    if any("-of-" in one for one in present):
        remedy = f"Here it is split into several files: download their index {name}.index.json too."
    if unread:
        remedy += f" It may be this file, which cannot be used: {unread[0]}"
    return ModelError(f"{where / name}: is missing (the folder holds {', '.join(present[:8]) or 'nothing'}). {remedy}")


def _expected_place(part: Part, model: Path, config: ModelConfig) -> tuple[Path, str]:
    """Return the folder and the name of the file in which a model of this layout has the part."""
    folder = model if model.is_dir() else model.parent
    if has_part_configs(folder) or "model_index.json" in _list_names(folder):
        return folder / part.folder, f"{part.stems[0]}.safetensors"
    return folder, getattr(config.files, part.file)


def _list_names(folder: Path) -> Sequence[str]:
    try:
        return sorted(os.listdir(folder))
    except OSError:
        return ()


def _list_folders(folder: Path) -> list[Path]:
    return [folder / name for name in _list_names(folder) if (folder / name).is_dir()]
