"""Where videos go and what they are called."""

import datetime
import hashlib
import os
import re
import tempfile
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from ..host import Host
from ..locks import Lock, create, working_under
from ..request import GenerationRequest
from ..settings import FOLDER_PATTERN, NAME_PATTERN, OUTPUT_FOLDER
from ..video.ffmpeg import OutputError
from ..video.write import cannot_write
from .marks import MARK, remove_dead_runs

DEFAULT_FOLDER = Path(__file__).resolve().parents[2] / "outputs" / "text2video"
LONGEST_NAME, MOST_BYTES = 120, 200
"""Characters and bytes of a file name without its suffix, so that it fits everywhere, Windows' old limits included."""
PROMPT_WORDS = 8
_NUMBER_HERE = "\ufffc"
_PATTERN = re.compile(r"\[(\w+)(?:<([^>]*)>)?\]")
_SEPARATORS = re.compile(r"[\\/]")
# Half an emoji, as a browser may send it, is no name either.
_FORBIDDEN = re.compile(r'[\x00-\x1f\x7f\\/:*?"<>|\ud800-\udfff]')
_RESERVED = re.compile(r"(?i)(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[\d¹²³]) *(\.|$)")


class Destination(NamedTuple):
    """A root folder and the patterns below it, in the WebUI's style."""

    root: Path = DEFAULT_FOLDER
    folder_pattern: str = FOLDER_PATTERN.default
    name_pattern: str = NAME_PATTERN.default


def destination(host: Host) -> Destination:
    """Return where the settings put videos. Raises OutputError."""
    chosen = host.setting(OUTPUT_FOLDER).strip()
    folder = chosen_folder(chosen) if chosen else host.outputs_folder()
    return Destination(folder, host.setting(FOLDER_PATTERN), host.setting(NAME_PATTERN))


def chosen_folder(text: str) -> Path:
    """The folder that a person has typed. Raises OutputError for what none can be called."""
    try:
        folder = Path(text).expanduser()
        text.encode()
        # Names that a disk refuses, it refuses later; this refuses what can be no name.
        with suppress(OSError):
            folder.stat()
    except (ValueError, RuntimeError) as error:
        raise OutputError(f"The output folder {text!a} cannot be used: {error}. Choose another.") from error
    return folder


def make_folder(where: Destination, values: Mapping[str, str]) -> Path:
    """The folder for one request, made if it is not there and tried for writing. Raises OutputError."""
    parts = _SEPARATORS.split(_filled(where.folder_pattern, values))
    folder = where.root.joinpath(*(_name(part) for part in parts if part.strip(" .")))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            os.listdir(folder)
    except OSError as error:
        raise cannot_write(folder, error) from error
    return folder


@contextmanager
def reserved_stem(folder: Path, pattern: str, values: Mapping[str, str]) -> Iterator[Path]:
    """A path without suffix that no file has and that no other run gets while the block lasts. Raises OutputError.

    What killed runs left in the folder is removed first.
    """
    try:
        mark = _reserve(folder, lambda number: _expand(pattern, {**values, "number": number}))
    except OSError as error:
        raise cannot_write(folder, error) from error
    try:
        with working_under(mark):
            yield mark.path.with_name(mark.path.name.removesuffix(MARK))
    finally:
        # Windows may still be looking at it.
        with suppress(OSError):
            mark.remove()


def _reserve(folder: Path, name: Callable[[str], str]) -> Lock:
    files = os.listdir(folder)
    if remove_dead_runs(folder, files):
        files = os.listdir(folder)
    before = name(_NUMBER_HERE).partition(_NUMBER_HERE)[0]
    numbered = re.compile(re.escape(_folded(before)) + r"(\d{1,9})(?!\d)")
    numbers = [int(match[1]) for file in files if (match := numbered.match(_folded(file)))]
    first = max(numbers, default=-1) + 1
    for attempt in range(100_000):
        stem = name(f"{first + attempt:05}")
        if attempt and stem == name(f"{first:05}"):
            stem += f"-{attempt}"
        try:
            mark = create(folder / (stem + MARK))
        except FileExistsError:
            continue
        # Looked for only now: whoever had this name before has let go of it.
        if not _is_taken(folder, stem, mark):
            return mark
    raise OSError(f"there are too many files like {name(f'{first:05}')}")


def _is_taken(folder: Path, stem: str, mark: Lock) -> bool:
    """Return whether a file has that name; the mark is removed then."""
    taken = True
    try:
        taken = any(_has_stem(file, stem) for file in os.listdir(folder))
    finally:
        if taken:
            mark.remove()
    return taken


def _folded(name: str) -> str:
    """Return one spelling for all names that Windows and macOS take for the same."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def _has_stem(file: str, stem: str) -> bool:
    file, stem = _folded(file), _folded(stem)
    rest = file[len(stem) :] if file.startswith(stem) else None
    return rest == "" or (rest is not None and rest.startswith(".") and rest != MARK)


def pattern_values(request: GenerationRequest, model: str) -> dict[str, str]:
    """Return what [name] in a pattern stands for."""
    return {
        "seed": str(request.seed),
        "steps": str(request.steps),
        "cfg": f"{request.cfg_scale:g}",
        "sampler": request.sampler,
        "width": str(request.width),
        "height": str(request.height),
        "frames": str(request.frames),
        "fps": f"{request.fps:g}",
        "model_name": model.strip("<>"),
        "prompt": request.prompt,
        "prompt_hash": hashlib.sha256(request.prompt.encode()).hexdigest()[:8],
        "prompt_words": " ".join(re.findall(r"\w+", request.prompt)[:PROMPT_WORDS]),
        "date": datetime.date.today().isoformat(),
        "datetime": datetime.datetime.now().strftime("%Y%m%d%H%M%S"),
    }


def _expand(pattern: str, values: Mapping[str, str]) -> str:
    """A pattern as one name that every system takes."""
    return _name(_filled(pattern, values))


def _filled(pattern: str, values: Mapping[str, str]) -> str:
    """A pattern with its values; only a date may bring folders with it. Unknown patterns stay as they are."""

    def value(match: re.Match[str]) -> str:
        name, form = match[1].lower(), match[2]
        if name == "datetime" and form:
            return _now(form) or match[0]
        return _SEPARATORS.sub("_", values.get(name, match[0]))

    return _PATTERN.sub(value, pattern)


def _name(text: str) -> str:
    name = _FORBIDDEN.sub("_", text)[:LONGEST_NAME]
    name = name.encode()[:MOST_BYTES].decode(errors="ignore").strip(" .") or "video"
    return f"_{name}" if _RESERVED.match(name) else name


def _now(form: str) -> str | None:
    try:
        return datetime.datetime.now().strftime(form)
    except (ValueError, UnicodeError):
        return None
