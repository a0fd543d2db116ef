"""Lists LoRA files. No file is opened for that: there may be thousands, of any kind."""

import difflib
import os
from collections.abc import Iterator
from pathlib import Path

from ...modelscope.errors import RequestError

ENDINGS = (".safetensors", ".pt", ".bin", ".ckpt")
CLOSE = 5
"""Number of similar names that an error lists."""


def find_loras(folder: Path) -> dict[str, list[Path]]:
    """Return the files in a folder and its subfolders by their names without extensions, sorted."""
    found: dict[str, list[Path]] = {}
    for path in sorted(_files(folder), key=lambda path: (path.stem.lower(), str(path))):
        found.setdefault(path.stem, []).append(path)
    return found


def _files(folder: Path) -> Iterator[Path]:
    """Yield the files in a folder and its subfolders. Follow links as the WebUI does, but visit each folder once."""
    seen: set[str] = set()
    for root, folders, names in os.walk(folder, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith(".")]
        here = os.path.realpath(root)
        if here in seen:
            folders.clear()
            continue
        seen.add(here)
        yield from (Path(root, name) for name in names if name.lower().endswith(ENDINGS) and _can_be_typed(name))


def _can_be_typed(name: str) -> bool:
    """Return whether a file's name can be typed into a tag.

    Names cannot if they are not valid Unicode, begin with a dot (another system's archive), contain a tag's characters,
    or begin or end with a space.
    """
    return (
        not name.startswith((".", " "))
        and not Path(name).stem.endswith(" ")
        and name.isprintable()
        and not set(name) & set("<>:")
    )


def _without_ending(name: str) -> str:
    return Path(name).stem if name.lower().endswith(ENDINGS) else name


def lora_named(found: dict[str, list[Path]], name: str) -> Path:
    """Return the found file with this name. Raises RequestError, which lists similar names, if there is none."""
    paths = found.get(name) or found.get(_without_ending(name), [])
    if len(paths) > 1:
        several = " and ".join(map(str, paths))
        raise RequestError(f"Several files have the LoRA name {name!r}: {several}. Rename all but one.")
    if paths:
        return paths[0]
    close = difflib.get_close_matches(name.lower(), [known.lower() for known in found], CLOSE, 0.4)
    similar = [known for known in found if known.lower() in close][:CLOSE]
    hint = f"Similar names: {', '.join(similar)}." if similar else f"LoRA files found: {len(found)}."
    raise RequestError(f"There is no LoRA {name!r}. {hint} Put its file into the LoRA folder, or check the name.")
