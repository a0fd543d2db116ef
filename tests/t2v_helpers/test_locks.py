"""Locks: held by the living, free after the dead, and never taken for free where a drive has none."""

import errno
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from sd_t2v.t2v_helpers import locks
from sd_t2v.t2v_helpers.locks import Note, create, take

HOLDER = """
import sys, time
from pathlib import Path
from sd_t2v.t2v_helpers.locks import Note, create
lock = create(Path(sys.argv[1]), Note(source="source", goal="goal"))
print("locked", flush=True)
time.sleep(60)
"""


@contextmanager
def holding(path: Path) -> Iterator["subprocess.Popen[str]"]:
    with subprocess.Popen([sys.executable, "-c", HOLDER, str(path)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout and process.stdout.readline() == "locked\n"
        try:
            yield process
        finally:
            process.kill()


def is_free(path: Path) -> bool:
    taken = take(path)
    if taken.lock:
        taken.lock.close()
    return taken.lock is not None


def test_a_lock_is_held_by_the_living_and_free_after_a_kill(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with holding(path) as process:
        assert take(path) == (None, None, "")
        process.kill()
        process.wait(60)
        taken = take(path)
    assert taken.lock
    assert taken.note == Note(locked=True, source="source", goal="goal")
    taken.lock.remove()
    assert os.listdir(tmp_path) == []


def test_another_thread_of_this_process_does_not_get_it(tmp_path: Path) -> None:
    lock = create(tmp_path / "lock")
    assert not is_free(lock.path)
    with pytest.raises(FileExistsError):
        create(lock.path)
    lock.close()
    assert is_free(lock.path)
    taken = take(lock.path)
    assert not is_free(lock.path)
    assert taken.lock
    taken.lock.remove()
    assert take(lock.path) == (None, None, "")


def test_a_drive_without_locks_gives_nothing_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(descriptor: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    with monkeypatch.context() as patch:
        patch.setattr(locks, "_lock", refuse)
        lock = create(tmp_path / "lock")
        assert "has no locks" in take(lock.path).why
    # Nor later, when there are some: its owner has none.
    assert take(lock.path).lock is None
    assert "has no locks" in take(lock.path).why
    lock.remove()
    (tmp_path / "old").touch()
    monkeypatch.setattr(locks, "_lock", refuse)
    assert take(tmp_path / "old").lock is None


def test_a_drive_that_gives_every_lock_to_everyone_gives_nothing_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locks, "_lock", lambda descriptor: None)
    lock = create(tmp_path / "lock")
    taken = take(lock.path)
    assert taken.lock is None
    assert "has no locks" in taken.why
    lock.remove()


@pytest.mark.parametrize("content", [b"mine", b"{}", b"[1]", b'{"by": "text2video"}', b"\xff", b"[" * 100_000])
def test_a_strangers_file_is_not_ours(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "lock"
    path.write_bytes(content)
    assert take(path) == (None, None, "")
    assert path.read_bytes() == content


@pytest.mark.skipif(sys.platform == "win32", reason="links and pipes as Unix has them")
def test_what_is_no_file_is_not_ours(tmp_path: Path) -> None:
    (tmp_path / "real").touch()
    (tmp_path / "link").symlink_to("real")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    assert [take(tmp_path / name) for name in ("link", "folder", "pipe", "gone")] == [(None, None, "")] * 4


@pytest.mark.skipif(sys.platform == "win32", reason="there an open file keeps its name")
def test_the_mark_of_the_next_is_not_removed(tmp_path: Path) -> None:
    first = create(tmp_path / "lock")
    (tmp_path / "lock").unlink()
    second = create(tmp_path / "lock")
    first.close()
    assert not is_free(second.path)
    assert second.is_in_place()


def own(folder: Path, number: int, lost: list[str]) -> None:
    """Have marks of the same few names as others, one after the other; lost: those that somebody else got, too."""
    for turn in range(60):
        with suppress(FileExistsError):
            lock = create(folder / str((number + turn) % 3))
            if not lock.is_in_place() or is_free(lock.path):
                lost.append(lock.path.name)
            lock.remove()


def clean(folder: Path, done: threading.Event) -> None:
    """Remove all that nobody seems to have."""
    while not done.is_set():
        for lock in (take(folder / name).lock for name in os.listdir(folder)):
            if lock:
                lock.remove()


def test_many_at_once_never_share_and_never_lose_a_lock(tmp_path: Path) -> None:
    lost: list[str] = []
    done = threading.Event()
    cleaners = [threading.Thread(target=clean, args=(tmp_path, done)) for _ in range(3)]
    owners = [threading.Thread(target=own, args=(tmp_path, number, lost)) for number in range(6)]
    for thread in cleaners + owners:
        thread.start()
    for thread in owners:
        thread.join(60)
    done.set()
    for thread in cleaners:
        thread.join(60)
    assert lost == []
    assert os.listdir(tmp_path) == []


def test_an_end_in_the_middle_of_making_one_leaves_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(descriptor: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(locks, "_lock", interrupt)
    with pytest.raises(KeyboardInterrupt):
        create(tmp_path / "lock")
    assert os.listdir(tmp_path) == []


@pytest.mark.skipif(sys.platform == "win32", reason="stops as Unix does")
def test_a_process_that_is_stopped_still_works(tmp_path: Path) -> None:
    with holding(tmp_path / "lock") as process:
        process.send_signal(signal.SIGSTOP)
        assert not is_free(tmp_path / "lock")
