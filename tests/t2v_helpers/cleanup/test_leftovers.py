"""What killed processes leave: taken away by the next, named by the doctor, and nothing else ever touched."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from sd_t2v.t2v_helpers.cleanup.find_leftovers import find_leftovers
from sd_t2v.t2v_helpers.cleanup.leftovers import remove_leftovers
from sd_t2v.t2v_helpers.commands.models import main
from sd_t2v.t2v_helpers.generation.marks import MARK
from sd_t2v.t2v_helpers.generation.outputs import reserved_stem
from sd_t2v.t2v_helpers.hosts.console import ConsoleHost
from sd_t2v.t2v_helpers.locks import Lock, create, take
from sd_t2v.t2v_helpers.models import misplaced as module
from sd_t2v.t2v_helpers.models.download import LOCK as DOWNLOAD_LOCK
from sd_t2v.t2v_helpers.models.download import STAGING
from sd_t2v.t2v_helpers.models.known import find_known
from sd_t2v.t2v_helpers.models.misplaced import Misplaced, move
from sd_t2v.t2v_helpers.models.staging import CONTENT, LOCK, open_staging
from sd_t2v.t2v_helpers.settings import OUTPUT_FOLDER
from sd_t2v.tests.helpers.layouts import assert_golden_weights
from sd_t2v.tests.helpers.support import write_model_folder

HEX = "0123456789abcdef" * 2
PART = f".{HEX}.part"
KILLED = -getattr(signal, "SIGKILL", 9)
SAVES = """
import os, sys, torch
from pathlib import Path
from sd_t2v.t2v_helpers.video import encoder, write
from sd_t2v.t2v_helpers.video.formats import FORMATS
from sd_t2v.t2v_helpers.generation.outputs import reserved_stem
Feeder = encoder.Feeder
class Halfway(Feeder):
    def run(self):
        for number, frame in enumerate(self._frames):
            self._pipe.write(frame.numpy().tobytes())
            self._pipe.flush()
            if number == 3:
                print("writing", flush=True)
                sys.stdin.readline()
        self._pipe.close()
clip = torch.zeros(8, 64, 64, 3, dtype=torch.uint8)
with reserved_stem(Path(sys.argv[1]), "[number]", {}) as stem:
    for name in sys.argv[2:]:
        # The last one is in the middle of its frames when the parent hears of it.
        encoder.Feeder = Halfway if name == sys.argv[-1] else Feeder
        write.write_video(stem.with_name(stem.name + FORMATS[name].suffix), clip, 8, FORMATS[name])
"""


@contextmanager
def saving(folder: Path, *formats: str) -> Iterator["subprocess.Popen[str]"]:
    """A process in the middle of saving a video."""
    command = [sys.executable, "-c", SAVES, str(folder), *formats]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout and process.stdout.readline() == "writing\n"
        try:
            yield process
        finally:
            process.kill()


def killed(process: "subprocess.Popen[str]", mark: Path) -> None:
    """Kill it, and wait for its ffmpeg, which keeps the mark for as long as it still writes."""
    process.kill()
    assert process.wait(60) == KILLED
    for _ in range(1000):
        taken = take(mark)
        if taken.lock:
            taken.lock.close()
            return
        time.sleep(0.01)
    pytest.fail("ffmpeg goes on for ever")


def names(folder: Path) -> list[str]:
    return sorted(os.listdir(folder))


def next_run(folder: Path) -> None:
    with reserved_stem(folder, "[number]", {}):
        pass


def end_of(program: str, *arguments: object) -> int:
    """How a process with that program ends."""
    return subprocess.run([sys.executable, "-c", program, *map(str, arguments)], check=False, timeout=300).returncode


pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="kills as Unix does")


def killed_when(there: Callable[[], object], command: list[str]) -> None:
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not there():
        assert process.poll() is None
        time.sleep(0.001)
    process.kill()
    assert process.wait(60) == KILLED


def test_a_killed_run_leaves_nothing_to_the_next(tmp_path: Path) -> None:
    """The whole program."""
    command = [
        sys.executable,
        "-m",
        "sd_t2v.t2v_helpers.commands.demo",
        "x",
        "--steps",
        "1",
        "--output-dir",
        str(tmp_path),
    ]
    many = [*command, "--frames", "24", "--formats", "MP4,GIF,WebM"]
    killed_when(lambda: list(tmp_path.rglob("*.partial*")), many)
    assert list(tmp_path.rglob(f"*{MARK}"))
    assert subprocess.run([*command, "--frames", "1"], check=False, capture_output=True, timeout=300).returncode == 0
    (folder,) = tmp_path.iterdir()
    assert not [name for name in names(folder) if ".partial" in name or name.endswith(MARK)]
    assert [name for name in names(folder) if name.endswith(".mp4")]


def test_what_was_complete_stays(tmp_path: Path) -> None:
    with saving(tmp_path, "GIF", "MP4", "PNG frames") as process:
        killed(process, tmp_path / f"00000{MARK}")
    assert names(tmp_path) == ["00000.gif", "00000.mp4", "00000.partial", f"00000{MARK}"]
    next_run(tmp_path)
    assert names(tmp_path) == ["00000.gif", "00000.mp4"]


def test_the_living_keep_what_is_theirs(tmp_path: Path) -> None:
    with saving(tmp_path, "MP4") as living, saving(tmp_path, "MP4") as dying:
        killed(dying, tmp_path / f"00001{MARK}")
        for _ in range(3):
            next_run(tmp_path)
        (left,) = [name for name in names(tmp_path) if name.endswith(MARK)]
        assert find_leftovers(host(tmp_path / "models", tmp_path)) == []
        living.communicate("\n", timeout=60)
        assert living.returncode == 0
    assert names(tmp_path) == [left.replace(MARK, ".mp4")]


def test_an_ffmpeg_that_outlives_its_run_keeps_what_it_writes(tmp_path: Path) -> None:
    """Else it could make its file after everything was removed, and nothing would say whose that is."""
    with saving(tmp_path, "MP4") as process:
        (ffmpeg,) = psutil.Process(process.pid).children()
        ffmpeg.suspend()
        process.kill()
        assert process.wait(60) == KILLED
        before = names(tmp_path)
        assert f"00000{MARK}" in before
        next_run(tmp_path)
        assert names(tmp_path) == before
        ffmpeg.resume()
        killed(process, tmp_path / f"00000{MARK}")
    next_run(tmp_path)
    assert names(tmp_path) == []


def test_many_threads_clean_at_once(tmp_path: Path) -> None:
    for number in range(20):
        (tmp_path / f"{number}{MARK}").touch()
        (tmp_path / f"{number}.mp4.partial.mp4").write_bytes(b"half")
    found: list[str] = []

    def save() -> None:
        with reserved_stem(tmp_path, "[number]", {}) as stem:
            stem.with_name(stem.name + ".gif").touch()
            found.append(stem.name)

    threads = [threading.Thread(target=save) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(set(found)) == 12
    assert names(tmp_path) == sorted(f"{name}.gif" for name in found)


def test_what_an_earlier_version_left_goes_and_strangers_files_stay(tmp_path: Path) -> None:
    (tmp_path / f"7{MARK}").touch()
    (tmp_path / "7.webm.partial.webm").write_bytes(b"half")
    (tmp_path / "7.partial").mkdir()
    (tmp_path / "7.partial" / "00000.png").write_bytes(b"half")
    strangers = ["x.partial.mp4", "7.partial.mp4", "7.mp4.partial", "8.mp4.partial.mp4", "7-1.mp4.partial.mp4"]
    (tmp_path / f"mine{MARK}").write_text("a list of mine")
    (tmp_path / "mine.mp4.partial.mp4").write_bytes(b"mine")
    for name in strangers:
        (tmp_path / name).write_bytes(b"theirs")
    next_run(tmp_path)
    assert names(tmp_path) == sorted([*strangers, f"mine{MARK}", "mine.mp4.partial.mp4"])


def test_a_folder_with_more_in_it_than_frames_stays_with_its_mark(tmp_path: Path) -> None:
    (tmp_path / f"7{MARK}").touch()
    (tmp_path / "7.partial").mkdir()
    (tmp_path / "7.partial" / "notes.txt").write_text("precious")
    next_run(tmp_path)
    assert names(tmp_path) == ["7.partial", f"7{MARK}"]
    assert (tmp_path / "7.partial" / "notes.txt").read_text() == "precious"


def test_links_are_not_followed(tmp_path: Path) -> None:
    elsewhere, models = tmp_path / "elsewhere", tmp_path / "models"
    folder = elsewhere / PART
    folder.mkdir(parents=True)
    (folder / LOCK).touch()
    (folder / "00000.png").touch()
    for place in (tmp_path / "videos", models / "text2video", models / "text2video" / "m"):
        place.mkdir(parents=True)
        (place / PART).symlink_to(folder)
        (place / STAGING).symlink_to(folder)
    (tmp_path / "videos" / f"7{MARK}").touch()
    (tmp_path / "videos" / "7.partial").symlink_to(folder)
    (tmp_path / "videos" / f"8{MARK}").symlink_to(folder / LOCK)
    (models / "text2video" / "linked").symlink_to(elsewhere)
    next_run(tmp_path / "videos")
    remove_leftovers(find_leftovers(host(models, tmp_path / "videos")))
    assert names(folder) == ["00000.png", LOCK]
    assert names(models / "text2video") == [STAGING, "linked", "m"]
    assert names(tmp_path / "videos") == sorted([PART, STAGING, f"8{MARK}"])


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="nothing is forbidden to root")
def test_what_may_not_be_removed_ends_no_run_and_is_named(tmp_path: Path) -> None:
    videos = tmp_path / "videos"
    frames = videos / "7.partial"
    frames.mkdir(parents=True)
    (videos / f"7{MARK}").touch()
    (frames / "00000.png").touch()
    (videos / f"9{MARK}").touch(mode=0o000)
    frames.chmod(0o500)
    try:
        next_run(videos)
        assert names(videos) == ["7.partial", f"7{MARK}", f"9{MARK}"]
        left = find_leftovers(host(tmp_path / "models", videos))
        assert [one.path.name for one in left] == [f"7{MARK}", f"9{MARK}"]
        assert "Permission denied" in left[1].advice
        with pytest.raises(module.ModelError, match=r"7\.reserved could not be removed \(Permission denied\)"):
            remove_leftovers(left)
    finally:
        frames.chmod(0o700)


def host(models: Path, videos: Path) -> ConsoleHost:
    return ConsoleHost({OUTPUT_FOLDER: str(videos)}, models=models)


def test_a_killed_conversion_leaves_nothing_to_the_next(tmp_path: Path) -> None:
    folder = tmp_path / "text2video"
    write_model_folder(folder / "m")
    command = [
        sys.executable,
        "-m",
        "sd_t2v.t2v_helpers.commands.models",
        "convert",
        "m",
        "--models-dir",
        str(tmp_path),
    ]
    killed_when(lambda: list(folder.glob(f".*.part/{CONTENT}")), command)
    assert len(names(folder)) == 2
    (left,) = find_leftovers(host(tmp_path, tmp_path / "videos"))
    assert "an unfinished conversion" in str(left)
    assert subprocess.run(command, check=False, capture_output=True, timeout=300).returncode == 0
    assert names(folder) == ["m", "m-fp16"]
    assert_golden_weights(folder / "m-fp16")


def test_a_conversion_under_way_keeps_what_is_its(tmp_path: Path) -> None:
    with open_staging(tmp_path / "out") as folder:
        folder.mkdir()
        (folder / "half").touch()
        with open_staging(tmp_path / "other"):
            pass
        assert find_leftovers(host(tmp_path, tmp_path / "videos")) == []
        folder.rename(tmp_path / "out")
    assert names(tmp_path) == ["out"]


def test_folders_that_are_begun_at_once_do_no_harm(tmp_path: Path) -> None:
    def make(number: int) -> None:
        for turn in range(30):
            goal = tmp_path / f"{number}-{turn}"
            with open_staging(goal) as part:
                part.write_bytes(b"whole")
                part.rename(goal)

    threads = [threading.Thread(target=make, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert names(tmp_path) == sorted(f"{number}-{turn}" for number in range(6) for turn in range(30))


POINTS = ["before the copy", "after the copy", "after it has its name", "after the original is gone"]
MOVES = """
import os, signal, sys
from pathlib import Path
from sd_t2v.t2v_helpers.models import misplaced as module
path, goal, before, after = *map(Path, sys.argv[1:3]), *sys.argv[3:]
def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)
module._try_rename = lambda path, goal: False  # as between two disks
if before:
    setattr(module, before, die)
if after:
    work = getattr(module, after)
    setattr(module, after, lambda *arguments: (work(*arguments), die()))
module.move([module.Misplaced(path, goal)])
"""
WHERE = dict(zip(POINTS, [("_copy", ""), ("", "_copy"), ("remove_tree", ""), ("", "remove_tree")], strict=True))


@pytest.mark.parametrize("is_folder", [False, True])
@pytest.mark.parametrize("point", POINTS)
def test_a_killed_move_to_another_disk_loses_nothing(tmp_path: Path, point: str, is_folder: bool) -> None:
    path, goal = tmp_path / "disk" / "model", tmp_path / "models" / "model"
    content = path / "weights" if is_folder else path
    content.parent.mkdir(parents=True)
    content.write_bytes(b"weights")
    assert end_of(MOVES, path, goal, *WHERE[point]) == KILLED
    whole = [one for one in (path, goal) if (one / "weights" if is_folder else one).exists()]
    assert whole == {POINTS[2]: [path, goal], POINTS[3]: [goal]}.get(point, [path])
    move([Misplaced(path, goal)] if path in whole else [])
    with open_staging(goal):
        pass
    assert (goal / "weights" if is_folder else goal).read_bytes() == b"weights"
    assert names(goal.parent) == ["model"]


def test_a_copy_whose_original_is_gone_is_kept(tmp_path: Path) -> None:
    path, goal = tmp_path / "disk.pth", tmp_path / "text2video" / "disk.pth"
    path.write_bytes(b"weights")
    assert end_of(MOVES, path, goal, "", "_copy") == KILLED
    path.rename(tmp_path / "away")
    with open_staging(goal):
        pass
    (left,) = find_leftovers(host(tmp_path, tmp_path / "videos"))
    (said,) = remove_leftovers([left])
    assert f"an unfinished copy of {path}" in said and "may be the only copy" in said
    assert (left.path / CONTENT).read_bytes() == b"weights"
    path.touch()
    with open_staging(goal):
        pass
    assert names(goal.parent) == []


@pytest.mark.parametrize("is_folder", [False, True])
def test_a_copy_of_what_another_move_brought_there_goes(tmp_path: Path, is_folder: bool) -> None:
    """Two moves at once: the other one was quicker, and took the original away."""
    path, goal = tmp_path / "disk" / "model", tmp_path / "text2video" / "model"
    content = path / "weights" if is_folder else path
    content.parent.mkdir(parents=True)
    content.write_bytes(b"weights")
    assert end_of(MOVES, path, goal, "", "_copy") == KILLED
    path.rename(goal)
    at_goal = goal / "weights" if is_folder else goal
    at_goal.write_bytes(b"others")
    with open_staging(tmp_path / "text2video" / "other"):
        pass
    assert len(names(goal.parent)) == 2
    at_goal.write_bytes(b"weights")
    (left,) = find_leftovers(host(tmp_path, tmp_path / "videos"))
    assert "removed" in remove_leftovers([left])[0]
    assert names(goal.parent) == ["model"] and at_goal.read_bytes() == b"weights"


@pytest.mark.parametrize("when", ["while it copies", "while it deletes"])
def test_two_moves_at_once_leave_one_file_and_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    path, goal = tmp_path / "disk.pth", tmp_path / "text2video" / "disk.pth"
    path.write_bytes(b"weights")
    name = {"while it copies": "_copy", "while it deletes": "remove_tree"}[when]
    work = getattr(module, name)

    def work_beside_another(*arguments: Path) -> None:
        if name == "_copy":
            work(*arguments)
            path.rename(goal)
        else:
            path.unlink()
            work(*arguments)

    monkeypatch.setattr(module, "_try_rename", lambda path, goal: False)
    monkeypatch.setattr(module, name, work_beside_another)
    assert f"moved to {goal}" in move([Misplaced(path, goal)])[0]
    assert names(goal.parent) == ["disk.pth"] and goal.read_bytes() == b"weights"


def test_a_move_to_another_disk_that_cannot_delete_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> None:
        raise PermissionError(13, "Permission denied")

    path, goal = tmp_path / "a.pth", tmp_path / "models" / "a.pth"
    path.write_bytes(b"x")
    monkeypatch.setattr(module, "_try_rename", lambda path, goal: False)
    monkeypatch.setattr(module, "remove_tree", refuse)
    assert "but could not be deleted (Permission denied)" in move([Misplaced(path, goal)])[0]
    assert goal.read_bytes() == path.read_bytes()


def test_the_doctor_names_and_removes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    models, videos = tmp_path / "models", tmp_path / "videos"
    write_model_folder(models / "text2video" / "m")
    where = ["doctor", "--models-dir", str(models), "--output-dir", str(videos)]
    yesterday = videos / "2026-01-01"
    yesterday.mkdir(parents=True)
    with saving(yesterday, "MP4") as process:
        killed(process, yesterday / f"00000{MARK}")
    half = models / "text2video" / PART
    half.mkdir()
    (half / "text2video_pytorch_model.safetensors").write_bytes(bytes(1_500_000))
    assert main(where) == 1
    said = capsys.readouterr().out
    assert f"{half}: an unfinished conversion by an earlier version" in said and "1.5 MB. --clean removes it." in said
    assert f"{yesterday / f'00000{MARK}'}: the mark of a run that has ended, with 1 unfinished file, 0.0 MB." in said
    assert half.exists()
    assert main([*where, "--clean"]) == 0
    assert "removed, 1.5 MB" in capsys.readouterr().out
    assert names(yesterday) == [] and names(models / "text2video") == ["m"]
    assert main(where) == 0


def test_the_doctor_keeps_what_may_be_the_only_copy_or_another_persons(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    models, videos = tmp_path / "models", tmp_path / "videos"
    folder = models / "text2video"
    (folder / PART / "unet").mkdir(parents=True)
    (folder / f".{HEX[::-1]}.part").write_bytes(b"the only one")
    (folder / ".part").mkdir()
    videos.mkdir()
    (videos / "x.mp4.partial.mp4").write_bytes(b"whose?")
    (videos / "x.partial.mp4").write_bytes(b"a stranger's")
    before = sorted(tmp_path.rglob("*"))
    left = find_leftovers(host(models, videos))
    assert sorted(one.path.name for one in left) == sorted([PART, f".{HEX[::-1]}.part", "x.mp4.partial.mp4"])
    assert all("elete it yourself" in line for line in remove_leftovers(left))
    for options in ([], ["--clean"]):
        assert main(["doctor", "--models-dir", str(models), "--output-dir", str(videos), *options]) == 0
        printed = capsys.readouterr().out
        assert all(str(one.path) in printed for one in left)
        assert "may be the only copy of a model" in printed
    assert sorted(tmp_path.rglob("*")) == before


def test_a_drive_without_locks_is_no_fault_of_a_leftover(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    monkeypatch.setattr(Lock, "holds", lambda self: None)
    models, videos = tmp_path / "models", tmp_path / "videos"
    models.mkdir()
    videos.mkdir()
    (videos / f"7{MARK}").touch()
    assert main(["doctor", "--models-dir", str(models), "--output-dir", str(videos)]) == 0
    printed = capsys.readouterr().out
    assert f"7{MARK}: the mark of a run" in printed and "It stays (this drive has no locks" in printed


def test_names_write_no_lines_of_their_own(tmp_path: Path) -> None:
    (tmp_path / f"a\n  ok    UNet\x1b[31m{MARK}").touch()
    (left,) = find_leftovers(host(tmp_path / "models", tmp_path))
    assert str(left).isprintable()


def parts(tmp_path: Path) -> tuple[Path, Path]:
    """Half a download that can go on, and one that nobody asks for again."""
    known = find_known("potat1")
    assert known
    goal = known.goal(tmp_path, tmp_path / "Lora")
    file = known.files[0]
    staging = goal / STAGING
    staging.mkdir(parents=True)
    digits = (file.sha256 or "0" * 12)[:12]
    resumable, useless = staging / f"{file.name}.{digits}.part", staging / f"gone.pth.{'0' * 12}.part"
    for path in (resumable, useless):
        path.write_bytes(b"half")
    return resumable, useless


def test_half_a_download_that_can_go_on_stays(tmp_path: Path) -> None:
    resumable, useless = parts(tmp_path)
    found = {one.path: one for one in find_leftovers(host(tmp_path, tmp_path / "videos"))}
    assert found.keys() == {resumable, useless}
    assert "run.py download potat1" in found[resumable].advice
    assert found[useless].is_useless and not found[resumable].is_useless
    remove_leftovers(list(found.values()))
    assert names(resumable.parent) == [resumable.name]


def test_the_folder_goes_with_the_last_part(tmp_path: Path) -> None:
    resumable, useless = parts(tmp_path)
    resumable.unlink()
    (useless.parent / DOWNLOAD_LOCK).touch()
    remove_leftovers(find_leftovers(host(tmp_path, tmp_path / "videos")))
    assert not useless.parent.exists()


def test_a_download_under_way_is_left_alone(tmp_path: Path) -> None:
    from filelock import FileLock

    _, useless = parts(tmp_path)
    left = find_leftovers(host(tmp_path, tmp_path / "videos"))
    with FileLock(useless.parent / DOWNLOAD_LOCK):
        assert find_leftovers(host(tmp_path, tmp_path / "videos")) == []
        assert any("another program is using it now" in line for line in remove_leftovers(left))
    assert useless.exists()


def test_a_mark_in_use_is_no_leftover_however_old(tmp_path: Path) -> None:
    lock = create(tmp_path / f"7{MARK}")
    os.utime(lock.path, (0, 0))
    next_run(tmp_path)
    assert find_leftovers(host(tmp_path / "models", tmp_path)) == []
    assert names(tmp_path) == [f"7{MARK}"]
    lock.remove()
