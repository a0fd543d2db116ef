"""The folders and names of videos."""

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
"""Limits, in characters and bytes, of a file name without its suffix: safe on all systems, including old Windows."""
PROMPT_WORDS = 8
_SHORTENED = ("prompt", "prompt_words", "model_name")
"""Values that are shortened if a file name is too long. The others make it unique."""
_PATTERN = re.compile(r"\[(\w+)(?:<([^>]*)>)?\]")
_SEPARATORS = re.compile(r"[\\/]")
# Lone surrogates are forbidden, too: a browser may send half an emoji.
_FORBIDDEN = re.compile(r'[\x00-\x1f\x7f\\/:*?"<>|\ud800-\udfff]')
_RESERVED = re.compile(r"(?i)(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[\d¹²³]) *(\.|$)")


class Destination(NamedTuple):
    """A root folder and the patterns below it, in the WebUI's style."""

    root: Path = DEFAULT_FOLDER
    folder_pattern: str = FOLDER_PATTERN.default
    name_pattern: str = NAME_PATTERN.default


def destination(host: Host) -> Destination:
    """Return the destination of videos that the settings ask for. Raises OutputError."""
    chosen = host.setting(OUTPUT_FOLDER).strip()
    folder = chosen_folder(chosen) if chosen else host.outputs_folder()
    return Destination(folder, host.setting(FOLDER_PATTERN), host.setting(NAME_PATTERN))


def chosen_folder(text: str) -> Path:
    """Return the folder that a person has typed. Raises OutputError for a text that cannot be a folder's name."""
    try:
        folder = Path(text).expanduser()
        text.encode()
        # This refuses only what cannot be a name; a disk that does not accept the name refuses it later.
        with suppress(OSError):
            folder.stat()
    except (ValueError, RuntimeError) as error:
        raise OutputError(f"The output folder {text!a} cannot be used: {error}. Choose another.") from error
    return folder


def make_folder(where: Destination, values: Mapping[str, str]) -> Path:
    """Return the folder for a request; create it if it is missing, and test that it is writable. Raises OutputError."""
    parts = _SEPARATORS.split(_fill_pattern(where.folder_pattern, values))
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
    """Reserve a path without suffix that no file has, and that no other run gets within the block. Raises OutputError.

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
        # On Windows another program may still have it open.
        with suppress(OSError):
            mark.remove()


def _reserve(folder: Path, name: Callable[[str], str]) -> Lock:
    files = os.listdir(folder)
    if remove_dead_runs(folder, files):
        files = os.listdir(folder)
    before = os.path.commonprefix([name("00000"), name("11111")])  # noqa: RUF071 - of characters, not of folders
    numbered = re.compile(re.escape(_fold_case(before)) + r"(\d{1,9})(?!\d)")
    numbers = [int(match[1]) for file in files if (match := numbered.match(_fold_case(file)))]
    first = max(numbers, default=-1) + 1
    for attempt in range(100_000):
        stem = name(f"{first + attempt:05}")
        if attempt and stem == name(f"{first:05}"):
            stem += f"-{attempt}"
        try:
            mark = create(folder / (stem + MARK))
        except FileExistsError:
            continue
        # Checked only now that the mark is ours: a run that had the name before has finished its files.
        if not _is_taken(folder, stem, mark):
            return mark
    raise OSError(f"there are too many files like {name(f'{first:05}')}")


def _is_taken(folder: Path, stem: str, mark: Lock) -> bool:
    """Return whether a file has this name; if so, remove the mark."""
    taken = True
    try:
        taken = any(_has_stem(file, stem) for file in os.listdir(folder))
    finally:
        if taken:
            mark.remove()
    return taken


def _fold_case(name: str) -> str:
    """Return the same spelling for all names that Windows and macOS treat as equal."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def _has_stem(file: str, stem: str) -> bool:
    file, stem = _fold_case(file), _fold_case(stem)
    rest = file[len(stem) :] if file.startswith(stem) else None
    return rest == "" or (rest is not None and rest.startswith(".") and rest != MARK)


def pattern_values(request: GenerationRequest, model: str) -> dict[str, str]:
    """Return the values of the names that patterns have in brackets."""
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
    """Fill a pattern in, and return a file name that is valid on every system."""
    values = dict(values)
    for name in _SHORTENED:
        value = values.get(name, "")[:LONGEST_NAME]
        while value and _is_too_long(_fill_pattern(pattern, values)):
            values[name] = value = value[:-1].rstrip()
    return _name(_fill_pattern(pattern, values))


def _is_too_long(name: str) -> bool:
    return len(name) > LONGEST_NAME or len(name.encode(errors="replace")) > MOST_BYTES


def _fill_pattern(pattern: str, values: Mapping[str, str]) -> str:
    """Fill values into a pattern. Only a date's format may contain slashes; unknown names in brackets are kept."""

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
