"""Downloads known models with huggingface_hub: files are resumed, verified, and only then moved into their place."""

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
"""The folder, inside the model's, that holds files until they are complete."""
LOCK = "lock"
SHA256, SHA1 = 64, 40
"""Numbers of digits of the hashes that the hub reports: SHA-256 of large files, SHA-1 of those in git."""


class DownloadError(TextToVideoError):
    """The error for a download that cannot go on. What was downloaded is kept."""


class DownloadStopped(TextToVideoError):
    """The error for a download that a person stopped."""


class _TooMuchError(Exception):
    """The error for more bytes than were announced."""


class DownloadProgress(NamedTuple):
    """Progress of a download, in bytes of all files. name: says which file is being worked on."""

    done: int
    total: int
    name: str


OnProgress = Callable[[DownloadProgress], None]
"""Callback for the progress of a download; it may raise to end the download."""


class _Item(NamedTuple):
    """A file to download.

    size: in bytes; etag: the hub's hash of the file; goal: its final path; part: its path until it is complete.
    """

    file: RemoteFile
    url: str
    size: int
    etag: str
    goal: Path
    part: Path


def download(model: KnownModel, folder: Path, on_progress: OnProgress) -> list[str]:
    """Download a model's files into a folder, and return a line about each. Another call resumes an ended download.

    Args:
        model: The model.
        folder: The folder for its files; it is created if it is missing.
        on_progress: Called after each piece; an exception that it raises ends the download.

    Raises:
        DownloadError: The network, the hub or the disk failed.
    """
    staging = folder / STAGING
    with _explain_disk_errors(folder), _lock(staging):
        items = [_ask_hub(file, folder, staging) for file in model.files]
        present = {item: _is_whole(item.goal, item, on_progress) for item in items}
        wanted = [item for item, there in present.items() if not there]
        for item in items:
            # Remains of a file that has changed on the hub, or that got here in another way.
            _remove_parts(item, keep=item in wanted)
        _check_space(folder, wanted)
        done = sum(item.size for item, there in present.items() if there)
        messages = [f"{item.goal.name} was already there." for item, there in present.items() if there]
        total = sum(item.size for item in items)
        for item in wanted:
            _fetch(item, functools.partial(_report, on_progress, done, total))
            messages.append(_put_in_place(item))
            done += item.size
    with contextlib.suppress(OSError):
        # If others have files there, the folder is not empty and stays.
        (staging / LOCK).unlink()
        staging.rmdir()
    return messages


def _report(on_progress: OnProgress, before: int, total: int, name: str, size: int) -> None:
    on_progress(DownloadProgress(before + size, total, name))


@contextlib.contextmanager
def _explain_disk_errors(folder: Path) -> Iterator[None]:
    """Turn the disk's errors into DownloadError with an explanation."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        raise DownloadError(
            f"{folder}: could not be written to ({error.strerror or first_line(error)}). Check that there is space, "
            "that you may write there, and that none of its files is in use, for instance by a loaded model. Then try "
            "again; what was downloaded is kept."
        ) from error


@contextlib.contextmanager
def _lock(staging: Path) -> Iterator[None]:
    """Keep other downloads out of the folder within the context. Raises DownloadError."""
    from filelock import FileLock, Timeout

    staging.mkdir(parents=True, exist_ok=True)
    # The doctor takes the lock for a moment to see whether it is free, hence the timeout.
    lock = FileLock(str(staging / LOCK), timeout=1)
    try:
        lock.acquire()
    except Timeout as error:
        raise DownloadError(
            f"{staging.parent}: another download into this folder is running. Wait until it has finished."
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
            f"{url}: sent something other than the file, perhaps a login page. " + _advise_by_hand(file, url, folder)
        )
    if file.sha256 and not etag.startswith(file.sha256):
        raise DownloadError(
            f"{url}: is not the expected file (its SHA-256 is {etag[:12]}..., not {file.sha256}...). Nothing was "
            "downloaded."
        )
    return _Item(file, url, size, etag, folder / file.name, staging / f"{file.name}.{etag[:12]}.part")


def _import_hub() -> Any:
    try:
        import huggingface_hub
    except ImportError as error:
        raise DownloadError(
            "The package huggingface_hub is missing. Install it with: pip install huggingface_hub"
        ) from error
    return huggingface_hub


@contextlib.contextmanager
def _explain_network_errors(file: RemoteFile, url: str, folder: Path) -> Iterator[None]:
    """Turn the errors of the network and the hub into DownloadError with an explanation."""
    try:
        yield
    except (TextToVideoError, KeyboardInterrupt):
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno is not None and not _is_http(error):
            # This is an error of the disk.
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
        401: "does not exist, or needs a login; a token in HF_TOKEN may have expired",
        403: "needs permission; request access on the model's page",
        404: "no longer exists",
        416: "changed during the download; try again",
        429: "the server is getting too many requests; try again later",
    }
    if status in reasons:
        return f"{reasons[status]} (HTTP {status})."
    if status:
        return f"the server had an error (HTTP {status}); try again later."
    return f"could not be reached, or the connection was lost ({_find_innermost(error)}). Try again to continue."


def _find_innermost(error: BaseException) -> str:
    """Return urllib3's reason inside an error of requests, without the address, which the message already has."""
    inside = next((one for one in error.args if isinstance(one, Exception)), error)
    reason = first_line(getattr(inside, "reason", inside))
    return reason.partition("): ")[2] or reason


def _advise_by_hand(file: RemoteFile, url: str, folder: Path) -> str:
    return (
        f"Or download it with a browser and put it into {folder} as {file.name}. To use a mirror, set the environment "
        f"variable HF_ENDPOINT. Address: {url}"
    )


def _check_space(folder: Path, wanted: list[_Item]) -> None:
    missing = sum(item.size - _size(item.part) for item in wanted)
    if shortage := find_shortage(folder, missing):
        raise DownloadError(f"{folder}: the download {shortage}")


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


class _Watched:
    """A file that the hub's client writes to, and that reports its size."""

    def __init__(self, file: BinaryIO, item: _Item, report: Callable[[str, int], None]) -> None:
        self._file, self._size, self._report = file, item.size, report
        self.name = item.file.name

    def write(self, data: bytes) -> int:
        """Write data and report the new size. Raises _TooMuchError instead of writing more than was announced."""
        if self._file.tell() + len(data) > self._size:
            raise _TooMuchError
        written = self._file.write(data)
        self._report(self.name, self._file.tell())
        return written

    def tell(self) -> int:
        """Return the position in bytes."""
        return self._file.tell()

    def flush(self) -> None:
        """Flush the file."""
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
            f"{item.url}: what arrived was not the expected file, and was deleted. Try again. "
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
    """Turn off hf_transfer, if it is enabled: it chooses where to write, and cannot be stopped."""
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
    """Move a complete file into its place, and return what was done. A file that is already there is renamed."""
    if not item.goal.exists():
        item.part.rename(item.goal)
        return f"{item.goal.name} was downloaded."
    names = (item.goal.with_name(f"{item.goal.name}.old{number}") for number in itertools.count(1))
    kept = next(path for path in names if not path.exists())
    item.goal.rename(kept)
    item.part.rename(item.goal)
    return f"{item.goal.name} was downloaded. The former file is now {kept.name}; delete it if you do not need it."
