"""Where videos go and what they are called."""

import datetime
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .video import cannot_write

DEFAULT_FOLDER = Path(__file__).resolve().parent.parent / "outputs" / "text2video"
_NUMBERED = re.compile(r"(\d+)-")


def folder_of_today(root: Path) -> Path:
    """root/<date>, made if it is not there and tried for writing. Raises OutputError."""
    folder = root / datetime.date.today().isoformat()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            os.listdir(folder)
    except OSError as error:
        raise cannot_write(folder, error) from error
    return folder


@contextmanager
def reserved_path(folder: Path, seed: int, suffix: str) -> Iterator[Path]:
    """A new file <number>-<seed><suffix> that nobody else gets; removed again if the block fails."""
    path = _reserve(folder, seed, suffix)
    try:
        yield path
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def _reserve(folder: Path, seed: int, suffix: str) -> Path:
    numbers = [int(match[1]) for path in folder.iterdir() if (match := _NUMBERED.match(path.name))]
    number = max(numbers, default=-1) + 1
    while True:
        path = folder / f"{number:05}-{seed}{suffix}"
        try:
            path.touch(exist_ok=False)
            return path
        except FileExistsError:
            number += 1
        except OSError as error:
            raise cannot_write(folder, error) from error
