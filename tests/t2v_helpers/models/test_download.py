"""Downloads with the real client of the hub, from a hub on this computer that fails in every way."""

import errno
import io
import os
import random
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import huggingface_hub
import pytest

from sd_t2v.t2v_helpers.cleanup import half_downloads
from sd_t2v.t2v_helpers.cleanup.find_leftovers import find_leftovers
from sd_t2v.t2v_helpers.cleanup.leftovers import remove_leftovers
from sd_t2v.t2v_helpers.commands.models import main
from sd_t2v.t2v_helpers.hosts.console import ConsoleHost
from sd_t2v.t2v_helpers.models import download as module
from sd_t2v.t2v_helpers.models.download import STAGING, DownloadError, DownloadProgress, DownloadStopped, download
from sd_t2v.t2v_helpers.models.download_jobs import Jobs
from sd_t2v.t2v_helpers.models.known import KNOWN, KnownModel, RemoteFile, advice_for, describe_excess, find_known
from sd_t2v.tests.helpers.hub import Hub, running

CONTENT = random.Random(0).randbytes(3_000_000)
OTHER = random.Random(1).randbytes(3_000_000)
MODEL = KnownModel(
    "x", "X", "a model", "free", "x",
    (RemoteFile("some/one", "in/unet.pth", "unet.pth", 3e6), RemoteFile("some/one", "vae.pth", "vae.pth", 10)),
)  # fmt: skip


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The client waits before it tries again."""
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda _: None)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with running(Hub()) as hub:
        hub.put("some/one", "in/unet.pth", CONTENT)
        hub.put("some/one", "vae.pth", b"0123456789")
        template = hub.address + "/{repo_id}/resolve/{revision}/{filename}"
        # What HF_ENDPOINT sets when the client is imported first.
        monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr("huggingface_hub.file_download.HUGGINGFACE_CO_URL_TEMPLATE", template, raising=False)
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", hub.address)
        # The real files are a thousand times as large.
        monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 100_000)
        yield hub


def ignore(progress: DownloadProgress) -> None:
    pass


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def fails(folder: Path) -> str:
    with pytest.raises(DownloadError) as caught:
        download(MODEL, folder, ignore)
    assert not (folder / "unet.pth").exists()
    return str(caught.value)


def test_files_arrive_whole_with_progress(hub: Hub, tmp_path: Path) -> None:
    seen: list[DownloadProgress] = []
    said = download(MODEL, tmp_path / "new", seen.append)
    assert (tmp_path / "new" / "unet.pth").read_bytes() == CONTENT
    assert names(tmp_path / "new") == ["unet.pth", "vae.pth"]
    assert said == ["unet.pth was downloaded.", "vae.pth was downloaded."]
    assert {progress.total for progress in seen if "checking" not in progress.name} == {3_000_010}
    done = [progress.done for progress in seen if "checking" not in progress.name]
    assert done == sorted(done)
    assert done[-1] == 3_000_010


def test_what_is_there_is_not_downloaded_again(hub: Hub, tmp_path: Path) -> None:
    (tmp_path / "unet.pth").write_bytes(CONTENT)
    said = download(MODEL, tmp_path, ignore)
    assert said == ["unet.pth was already there.", "vae.pth was downloaded."]
    assert [path for method, path, _ in hub.asked if method == "GET"] == ["/some/one/resolve/main/vae.pth"]


def test_another_file_of_that_name_is_kept(hub: Hub, tmp_path: Path) -> None:
    (tmp_path / "unet.pth").write_bytes(b"mine")
    (tmp_path / "unet.pth.old1").write_bytes(b"older")
    assert "is now unet.pth.old2" in download(MODEL, tmp_path, ignore)[0]
    assert (tmp_path / "unet.pth.old2").read_bytes() == b"mine"
    assert (tmp_path / "unet.pth").read_bytes() == CONTENT


def test_a_cut_download_goes_on_where_it_was(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.cut_after = 700_000
    for _ in range(4):
        assert "Try again to continue" in fails(tmp_path)
        assert names(tmp_path) == [STAGING]
    download(MODEL, tmp_path, ignore)
    assert (tmp_path / "unet.pth").read_bytes() == CONTENT
    assert any(ranges and ranges != "bytes=0-" for _, _, ranges in hub.asked)


def test_a_file_that_changed_between_cut_and_resume_starts_anew(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:

    def stop(progress: DownloadProgress) -> None:
        if progress.done > 500_000:
            raise DownloadStopped

    with pytest.raises(DownloadStopped):
        download(MODEL, tmp_path, stop)
    assert len(list((tmp_path / STAGING).glob("*.part"))) == 1
    hub.put("some/one", "in/unet.pth", OTHER)
    download(MODEL, tmp_path, ignore)
    assert (tmp_path / "unet.pth").read_bytes() == OTHER
    assert names(tmp_path) == ["unet.pth", "vae.pth"]


def test_a_server_that_sends_all_again_or_something_else(hub: Hub, tmp_path: Path) -> None:
    def stop(progress: DownloadProgress) -> None:
        raise DownloadStopped

    with pytest.raises(DownloadStopped):
        download(MODEL, tmp_path, stop)
    hub.ignores_ranges = True
    message = fails(tmp_path)
    assert "was not the expected file, and was deleted" in message
    hub.ignores_ranges, hub.corrupts = False, True
    assert "was not the expected file" in fails(tmp_path)
    assert not list((tmp_path / STAGING).glob("*.part"))
    hub.corrupts = False
    download(MODEL, tmp_path, ignore)
    assert (tmp_path / "unet.pth").read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (401, "needs a login"),
        (403, "request access on"),
        (404, "no longer exists"),
        (429, "too many requests"),
        (500, "the server had an error (HTTP 500)"),
    ],
)
def test_refusals_say_what_to_do(hub: Hub, tmp_path: Path, status: int, words: str) -> None:
    hub.status = status
    message = fails(tmp_path)
    assert words in message
    assert "HF_ENDPOINT" in message
    assert f"put it into {tmp_path} as unet.pth" in message
    assert "/some/one/resolve/main/in/unet.pth" in message


def test_a_web_page_in_place_of_a_file(hub: Hub, tmp_path: Path) -> None:
    hub.web_page = True
    assert "perhaps a login page" in fails(tmp_path)


def test_nobody_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with running(Hub()) as hub:
        gone = hub.address
    template = gone + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", gone)
    assert "could not be reached, or the connection was lost" in fails(tmp_path)


def test_a_file_that_is_not_the_known_one(hub: Hub, tmp_path: Path) -> None:
    known = MODEL._replace(files=(MODEL.files[0]._replace(sha256="0" * 12),))
    with pytest.raises(DownloadError, match="is not the expected file"):
        download(known, tmp_path, ignore)


def test_no_space_is_told_before_and_meanwhile(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.says_size = 10**18
    assert "the download needs 2000000000.00 GB, but the disk has only" in fails(tmp_path)
    assert not [ask for ask in hub.asked if ask[0] == "GET"]
    hub.says_size = None

    def full(progress: DownloadProgress) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(DownloadError, match="No space left on device"):
        download(MODEL, tmp_path, full)
    download(MODEL, tmp_path, ignore)
    assert (tmp_path / "unet.pth").read_bytes() == CONTENT


@pytest.mark.skipif(sys.platform != "linux", reason="limits files as Linux does")
def test_a_disk_that_takes_no_more(hub: Hub, tmp_path: Path) -> None:
    """A process that may write no file above a megabyte: the system's own error in the middle of a download."""
    program = f"""
import resource, signal
from pathlib import Path
import huggingface_hub.constants as constants
constants.HUGGINGFACE_CO_URL_TEMPLATE = {hub.address!r} + "/{{repo_id}}/resolve/{{revision}}/{{filename}}"
constants.ENDPOINT = {hub.address!r}
from sd_t2v.t2v_helpers.models.download import download
from sd_t2v.t2v_helpers.models.known import KnownModel, RemoteFile
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))
file = RemoteFile("some/one", "in/unet.pth", "unet.pth", 3e6)
download(KnownModel("x", "X", "", "", "x", (file,)), Path({str(tmp_path)!r}), lambda progress: None)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=300)
    assert "DownloadError" in done.stderr
    assert "could not be written to (File too large)" in done.stderr
    assert not (tmp_path / "unet.pth").exists()
    download(MODEL, tmp_path, ignore)
    assert (tmp_path / "unet.pth").read_bytes() == CONTENT


KILLED = """
import os, signal, sys
from pathlib import Path
import huggingface_hub.constants as constants
constants.HUGGINGFACE_CO_URL_TEMPLATE = sys.argv[1] + "/{repo_id}/resolve/{revision}/{filename}"
constants.ENDPOINT, constants.DOWNLOAD_CHUNK_SIZE = sys.argv[1], 100_000
from sd_t2v.t2v_helpers.models.download import download
from sd_t2v.t2v_helpers.models.known import KnownModel, RemoteFile
def told(progress):
    if progress.done > 500_000:
        os.kill(os.getpid(), signal.SIGKILL)
file = RemoteFile("some/one", "in/unet.pth", "unet.pth", 3e6)
download(KnownModel("x", "X", "", "", "x", (file,)), Path(sys.argv[2]), told)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="kills as Unix does")
def test_a_killed_download_is_kept_for_the_next(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(half_downloads, "KNOWN", (MODEL,))
    goal = MODEL.goal(tmp_path, tmp_path / "Lora")
    assert (
        subprocess.run([sys.executable, "-c", KILLED, hub.address, str(goal)], check=False, timeout=300).returncode
        == -9
    )
    host = ConsoleHost(models=tmp_path)
    (left,) = (one for one in find_leftovers(host) if one.path.is_relative_to(tmp_path))
    assert not left.is_useless and left.size > 400_000
    assert "run.py download x" in remove_leftovers([left])[0]
    download(MODEL, goal, ignore)
    assert (goal / "unet.pth").read_bytes() == CONTENT
    assert any(ranges and ranges != "bytes=0-" for _, _, ranges in hub.asked)
    assert [one for one in find_leftovers(host) if one.path.is_relative_to(tmp_path)] == []


def test_a_part_of_a_file_that_came_in_another_way_goes(hub: Hub, tmp_path: Path) -> None:
    hub.cut_after = 700_000
    assert "Try again to continue" in fails(tmp_path)
    (tmp_path / "unet.pth").write_bytes(CONTENT)
    assert list((tmp_path / STAGING).glob("*.part"))
    download(MODEL, tmp_path, ignore)
    assert names(tmp_path) == ["unet.pth", "vae.pth"]


def test_two_downloads_at_once_do_not_meet(hub: Hub, tmp_path: Path) -> None:
    hub.slow = threading.Event()
    begun = threading.Event()
    first = threading.Thread(target=download, args=(MODEL, tmp_path, lambda _: begun.set()))
    first.start()
    assert begun.wait(30)
    with pytest.raises(DownloadError, match="another download into this folder is running"):
        download(MODEL, tmp_path, ignore)
    hub.slow.set()
    first.join(60)
    assert (tmp_path / "unet.pth").read_bytes() == CONTENT


def test_a_folder_that_may_not_be_written(hub: Hub, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DownloadError, match="could not be written to"):
        download(MODEL, tmp_path / "file", ignore)


def test_without_the_client_the_remedy_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(DownloadError, match="pip install huggingface_hub"):
        download(MODEL, tmp_path, ignore)


def test_the_catalogue_is_sound(tmp_path: Path) -> None:
    wanted = {"modelscope", "modelscope-original", "zeroscope-576w", "zeroscope-xl", "potat1", "animov", "t2v-turbo"}
    assert {model.key for model in KNOWN} == wanted
    for model in KNOWN:
        assert model.licence
        goal = model.goal(tmp_path / "models", tmp_path / "loras")
        assert goal.is_relative_to(tmp_path)
        assert all(Path(file.name).name == file.name for file in model.files)
    assert find_known("nothing") is None
    assert len({model.goal(tmp_path / "models", tmp_path / "loras") for model in KNOWN}) == len(KNOWN)


@pytest.mark.parametrize(
    ("folder", "size"),
    [
        ("ModelScope/t2v", (256, 256)),
        ("text2video/modelscope-fp16", (256, 256)),
        ("text2video/zeroscope_v2_576w", (576, 320)),
        ("text2video/zeroscope/zs2_XL", (1024, 576)),
        ("text2video/Zeroscope_v2_XL-fp16", (1024, 576)),
        ("text2video/potat1", (1024, 576)),
        ("text2video/animov-0.1", (384, 384)),
        ("text2video/text-to-video-ms-1.7b", (256, 256)),
    ],
)
def test_advice_is_found_by_name(folder: str, size: tuple[int, int]) -> None:
    advice = advice_for(Path("models") / folder)
    assert advice
    assert advice.largest == size == (advice.recommended["width"], advice.recommended["height"])
    assert describe_excess(advice, *size, 24) == ""
    assert "frames tend to fall apart" in describe_excess(advice, *size, 100)
    assert "was trained at" in describe_excess(advice, 2048, 2048, 24)


def test_unknown_models_get_no_advice() -> None:
    assert advice_for(Path("models/text2video/mine")) is None


@pytest.mark.skipif(not shutil.which("git"), reason="git says what the hash is")
def test_a_hash_of_git_is_checked_too(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"0123456789")
    item = module._Item(MODEL.files[1], "", 10, "0" * 40, path, path)
    told = subprocess.run(
        ["git", "hash-object", path], capture_output=True, text=True, check=True, timeout=300
    ).stdout.strip()
    assert module._is_whole(path, item._replace(etag=told), ignore)
    assert not module._is_whole(path, item, ignore)


def test_the_command_line_lists_asks_and_downloads(
    hub: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    where = ["--models-dir", str(tmp_path), "--lora-dir", str(tmp_path / "loras")]
    assert main(["download", *where]) == 0
    said = capsys.readouterr().out
    assert all(model.key in said and model.licence in said for model in KNOWN)
    assert main(["download", "nothing", *where]) == 2
    assert "no known model 'nothing'" in capsys.readouterr().err
    turbo = find_known("t2v-turbo")
    assert turbo
    hub.put(turbo.files[0].repository, turbo.files[0].path, CONTENT)
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))
    assert main(["download", "t2v-turbo", *where]) == 1
    assert "Add --yes to download it" in capsys.readouterr().err
    assert not hub.asked
    assert main(["download", "t2v-turbo", "--yes", *where]) == 0
    assert (tmp_path / "loras" / "t2v-turbo-ms.pt").read_bytes() == CONTENT
    assert main(["download", *where]) == 0
    assert "(installed)" not in capsys.readouterr().out  # nor is it, at this size
    os.truncate(tmp_path / "loras" / "t2v-turbo-ms.pt", int(turbo.size))
    assert main(["download", *where]) == 0
    assert "T2V-Turbo for ModelScope (LoRA) (installed)" in capsys.readouterr().out
    hub.status = 404
    assert main(["download", "potat1", "--yes", *where]) == 1
    assert "no longer exists" in capsys.readouterr().err


def test_an_end_of_input_at_the_question_is_a_no(
    hub: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    stdin = io.StringIO("")
    monkeypatch.setattr(stdin, "isatty", lambda: True)
    monkeypatch.setattr(sys, "stdin", stdin)
    assert main(["download", "t2v-turbo", "--models-dir", str(tmp_path)]) == 1
    assert not hub.asked


def test_a_faster_client_of_a_persons_is_left_out(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would write beside the program, not where we want; where it is missing, the hub's client ends in an error."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_ENABLE_HF_TRANSFER", True)
    download(MODEL, tmp_path, ignore)
    assert (tmp_path / "unet.pth").read_bytes() == CONTENT
    assert huggingface_hub.constants.HF_HUB_ENABLE_HF_TRANSFER is True


def test_a_server_that_sends_more_than_it_announced(hub: Hub, tmp_path: Path) -> None:
    hub.says_size = 1_000_000
    assert "was not the expected file" in fails(tmp_path)
    assert sum(path.stat().st_size for path in tmp_path.rglob("*.part")) == 0


@pytest.mark.parametrize("key", [MODEL.key, "another, which is not under way"])
def test_a_download_in_the_background_is_stopped(hub: Hub, tmp_path: Path, key: str) -> None:
    hub.slow = threading.Event()
    jobs = Jobs()
    job = jobs.start(MODEL, tmp_path)
    assert jobs.start(MODEL, tmp_path) is job
    jobs.stop(key)
    hub.slow.set()
    job.wait(60)
    assert isinstance(job.error, DownloadStopped)
    assert not (tmp_path / "unet.pth").exists()
