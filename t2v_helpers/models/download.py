"""Downloads known models through huggingface_hub: resumed where they were cut off, verified, and only then in place."""

import contextlib
import functools
import hashlib
import itertools
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from ...modelscope.errors import TextToVideoError, first_line
from ...modelscope.files import hash_file
from ..disk import find_shortage
from .known import KnownModel, RemoteFile

STAGING = ".download"
"""The folder inside the model's in which files stay until they are whole."""
LOCK = "lock"
SHA256, SHA1 = 64, 40
"""Digits of the hashes that the hub reports: SHA-256 of large files, SHA-1 of those in git."""


class DownloadError(TextToVideoError):
    """A download that cannot go on. What was downloaded stays."""


class DownloadStopped(TextToVideoError):
    """A download that a person stopped."""


class _TooMuchError(Exception):
    """More arrives than was announced."""


class DownloadProgress(NamedTuple):
    """How far a download is, in bytes of all files."""

    done: int
    total: int
    name: str


OnProgress = Callable[[DownloadProgress], None]
"""May raise to end the download."""


class _Item(NamedTuple):
    """A file to download.

    size: in bytes; etag: the hub's hash of it; goal: its place; part: where it grows until it is whole.
    """

    file: RemoteFile
    url: str
    size: int
    etag: str
    goal: Path
    part: Path


def download(model: KnownModel, folder: Path, on_progress: OnProgress) -> list[str]:
    """Download a model's files into a folder, and return what was done with each. Another call goes on from there.

    Args:
        model: The model.
        folder: Where its files belong; it is created if it is not there.
        on_progress: Called after each piece; whatever it raises ends the download.

    Raises:
        DownloadError: The network, the hub or the disk is against it.
    """
    staging = folder / STAGING
    with _explain_disk_errors(folder), _lock(staging):
        items = [_ask_hub(file, folder, staging) for file in model.files]
        present = {item: _is_whole(item.goal, item, on_progress) for item in items}
        wanted = [item for item, there in present.items() if not there]
        for item in items:
            # What is left of a file that has changed on the hub, or that came here in another way.
            _remove_parts(item, keep=item in wanted)
        _check_space(folder, wanted)
        done = sum(item.size for item, there in present.items() if there)
        messages = [f"{item.goal.name} was there already." for item, there in present.items() if there]
        total = sum(item.size for item in items)
        for item in wanted:
            _fetch(item, functools.partial(_report, on_progress, done, total))
            messages.append(_put_in_place(item))
            done += item.size
    with contextlib.suppress(OSError):
        # What others have there stays: the folder is not empty then.
        (staging / LOCK).unlink()
        staging.rmdir()
    return messages


def _report(on_progress: OnProgress, before: int, total: int, name: str, size: int) -> None:
    on_progress(DownloadProgress(before + size, total, name))


@contextlib.contextmanager
def _explain_disk_errors(folder: Path) -> Iterator[None]:
    """Turn the disk's errors into DownloadError, in words."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        raise DownloadError(
            f"{folder}: could not be written to ({error.strerror or first_line(error)}). Is there space, may you write "
            "there, and is none of its files in use, by a loaded model for instance? What was downloaded stays; try "
            "again then."
        ) from error


@contextlib.contextmanager
def _lock(staging: Path) -> Iterator[None]:
    """Keep others from downloading into the same folder meanwhile. Raises DownloadError."""
    from filelock import FileLock, Timeout

    staging.mkdir(parents=True, exist_ok=True)
    # The doctor has it for a moment, to see whether it is free.
    lock = FileLock(str(staging / LOCK), timeout=1)
    try:
        lock.acquire()
    except Timeout as error:
        raise DownloadError(
            f"{staging.parent}: another download into this folder is under way. Wait for it."
        ) from error
    try:
        yield
    finally:
        lock.release()


def _ask_hub(file: RemoteFile, folder: Path, staging: Path) -> _Item:
    """Ask the hub about a file. Raises DownloadError."""
    hub = _import_hub()
    url = hub.hf_hub_url(file.repository, file.path)
    with _explain_network_errors(file, url, folder):
        told = hub.get_hf_file_metadata(url)
    etag, size = told.etag or "", told.size
    if size is None or len(etag) not in (SHA256, SHA1):
        raise DownloadError(
            f"{url}: answered with something other than the file, a login page perhaps. "
            + _advise_by_hand(file, url, folder)
        )
    if file.sha256 and not etag.startswith(file.sha256):
        raise DownloadError(
            f"{url}: is another file than the known one (sha256 {etag[:12]}..., not {file.sha256}...). Nothing was "
            "downloaded."
        )
    return _Item(file, url, size, etag, folder / file.name, staging / f"{file.name}.{etag[:12]}.part")


def _import_hub() -> Any:
    try:
        import huggingface_hub
    except ImportError as error:
        raise DownloadError("The package huggingface_hub is missing: pip install huggingface_hub.") from error
    return huggingface_hub


@contextlib.contextmanager
def _explain_network_errors(file: RemoteFile, url: str, folder: Path) -> Iterator[None]:
    """Turn the errors of the network and the hub into DownloadError, in words."""
    try:
        yield
    except (TextToVideoError, KeyboardInterrupt):
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno is not None and not _is_http(error):
            # One of the disk.
            raise
        if not isinstance(error, OSError | ValueError | RecursionError) and not _is_http(error):
            raise
        raise DownloadError(f"{url}: {_explain(error)} {_advise_by_hand(file, url, folder)}") from error


def _is_http(error: BaseException) -> bool:
    """Return whether an error comes from requests, httpx or the hub's client."""
    return any(
        kind.__module__.partition(".")[0] in ("requests", "httpx", "huggingface_hub") for kind in type(error).__mro__
    )


def _explain(error: BaseException) -> str:
    status = getattr(getattr(error, "response", None), "status_code", None)
    reasons = {
        401: "is not there, or only for people who are logged in; a token in HF_TOKEN may have expired.",
        403: "may not be read: it has to be asked for on its page.",
        404: "is not there any more.",
        416: "changed while it was downloaded; try again.",
        429: "the server asks for patience; try again later.",
    }
    if status in reasons:
        return f"{reasons[status]} (HTTP {status})"
    if status:
        return f"the server had an error (HTTP {status}); try again later."
    return f"could not be reached or was cut off ({_find_innermost(error)}); try again to go on."


def _find_innermost(error: BaseException) -> str:
    """Return what urllib3 says inside of the error of requests, without the address, which the message has already."""
    inside = next((one for one in error.args if isinstance(one, Exception)), error)
    reason = first_line(getattr(inside, "reason", inside))
    return reason.partition("): ")[2] or reason


def _advise_by_hand(file: RemoteFile, url: str, folder: Path) -> str:
    return (
        f"Or download it with a browser and put it into {folder} as {file.name}; the environment variable HF_ENDPOINT "
        f"names a mirror. Address: {url}"
    )


def _check_space(folder: Path, wanted: list[_Item]) -> None:
    missing = sum(item.size - _size(item.part) for item in wanted)
    if shortage := find_shortage(folder, missing):
        raise DownloadError(f"{folder}: the download {shortage}")


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


class _Watched:
    """A file that reports how much of it there is. The hub's client writes to it."""

    def __init__(self, file: BinaryIO, item: _Item, report: Callable[[str, int], None]) -> None:
        self._file, self._size, self._report = file, item.size, report
        self.name = item.file.name

    def write(self, data: bytes) -> int:
        """Write, and report it. Raises _TooMuchError before more is written than was announced."""
        if self._file.tell() + len(data) > self._size:
            raise _TooMuchError
        written = self._file.write(data)
        self._report(self.name, self._file.tell())
        return written

    def tell(self) -> int:
        """Return its position, in bytes."""
        return self._file.tell()

    def flush(self) -> None:
        """Write all of it to the disk."""
        self._file.flush()


def _remove_parts(item: _Item, *, keep: bool) -> None:
    part = re.compile(re.escape(item.file.name) + r"\.[0-9a-f]{12}\.part")
    for old in item.part.parent.iterdir():
        if part.fullmatch(old.name) and not (keep and old == item.part):
            old.unlink()


def _fetch(item: _Item, report: Callable[[str, int], None]) -> None:
    """Download the rest of a file, and verify it. Raises DownloadError."""
    if _size(item.part) > item.size:
        item.part.unlink()
    with (
        contextlib.suppress(_TooMuchError),
        _explain_network_errors(item.file, item.url, item.goal.parent),
        item.part.open("ab") as file,
    ):
        _download_rest(item, file, report)
    if not _is_whole(item.part, item, lambda progress: report(progress.name, progress.done)):
        item.part.unlink()
        raise DownloadError(
            f"{item.url}: what arrived is not the file that was announced, and was deleted. Try again. "
            + _advise_by_hand(item.file, item.url, item.goal.parent)
        )


def _download_rest(item: _Item, file: BinaryIO, report: Callable[[str, int], None]) -> None:
    from huggingface_hub.file_download import http_get

    start = file.tell()
    if start < item.size:
        watched: Any = _Watched(file, item, report)
        with _without_hf_transfer():
            http_get(item.url, watched, resume_size=start, headers=_import_hub().utils.build_hf_headers())


@contextlib.contextmanager
def _without_hf_transfer() -> Iterator[None]:
    """Turn off hf_transfer, where a person has it: it writes where it wants and cannot be stopped."""
    constants, name = _import_hub().constants, "HF_HUB_ENABLE_HF_TRANSFER"
    before = getattr(constants, name, None)
    try:
        if before:
            setattr(constants, name, False)
        yield
    finally:
        if before:
            setattr(constants, name, before)


def _is_whole(path: Path, item: _Item, on_progress: OnProgress) -> bool:
    """Return whether a file has the announced size and hash."""
    if not path.is_file() or _size(path) != item.size:
        return False
    hashed = hashlib.sha256() if len(item.etag) == SHA256 else hashlib.sha1(f"blob {item.size}\0".encode())
    checking = DownloadProgress(item.size, item.size, f"checking {item.file.name}")
    return hash_file(path, hashed, lambda: on_progress(checking)) == item.etag


def _put_in_place(item: _Item) -> str:
    """Move a whole file to its place, and return what was done. A file that is there already is renamed."""
    if not item.goal.exists():
        item.part.rename(item.goal)
        return f"{item.goal.name} is there."
    names = (item.goal.with_name(f"{item.goal.name}.old{number}") for number in itertools.count(1))
    kept = next(path for path in names if not path.exists())
    item.goal.rename(kept)
    item.part.rename(item.goal)
    return f"{item.goal.name} is there; another file of that name is now {kept.name}, to be deleted if not needed."
