"""Writing files: every format complete, tagged and readable by others, or not there at all."""

import errno
import os
import re
import struct
import subprocess
import sys
import wave
from collections.abc import Iterator
from pathlib import Path

import imageio_ffmpeg
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from sd_t2v.modelscope.errors import RequestError
from sd_t2v.t2v_helpers.video.ffmpeg import OutputError, find_ffmpeg
from sd_t2v.t2v_helpers.video.formats import FORMATS
from sd_t2v.t2v_helpers.video.frames import read_frame
from sd_t2v.t2v_helpers.video.metadata import EXIF_IFD, UnreadableFile, read_tags
from sd_t2v.t2v_helpers.video.write import Sound, cannot_write, check_format, check_soundtrack, write_video

ROOT = Path(__file__).resolve().parents[3]
MP4 = FORMATS["MP4"]
CODECS = {"MP4": "h264", "GIF": "gif", "WebM": "vp9", "WebP": "webp"}
INFOTEXT = 'a "red" ball; = #1 \\ <b>пример 例 🎥</b>\nsecond line\nNegative prompt: x\nSteps: 3, Seed: 5, FPS: 12.5'


def gradient(frames: int, height: int, width: int) -> torch.Tensor:
    ramp = torch.linspace(40, 210, width).view(1, 1, width, 1)
    shift = torch.linspace(0, 30, frames).view(frames, 1, 1, 1)
    return (ramp + shift).expand(frames, height, width, 3).to(torch.uint8)


def described(path: Path) -> str:
    """What ffmpeg says of a file."""
    command = [find_ffmpeg(), "-hide_banner", "-i", str(path)]
    return subprocess.run(command, check=False, capture_output=True, text=True, encoding="utf-8", timeout=300).stderr


def sound(path: Path, seconds: float) -> Path:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(bytes(range(256)) * int(seconds * 62.5))
    return path


def test_frames_survive_the_round_trip(tmp_path: Path) -> None:
    frames = gradient(7, 48, 72)
    write_video(tmp_path / "a.mp4", frames, 12.5, MP4)
    reader = imageio_ffmpeg.read_frames(str(tmp_path / "a.mp4"))
    meta = next(reader)
    decoded = torch.stack([torch.frombuffer(bytearray(data), dtype=torch.uint8).view(48, 72, 3) for data in reader])
    assert (meta["codec"], meta["fps"], decoded.shape) == ("h264", 12.5, frames.shape)
    assert float((decoded.float() - frames.float()).abs().mean()) < 3
    assert os.listdir(tmp_path) == ["a.mp4"]


@pytest.mark.parametrize("name", ["MP4", "WebM", "GIF"])
def test_what_ffmpeg_sees(name: str, tmp_path: Path) -> None:
    path = tmp_path / f"a{FORMATS[name].suffix}"
    write_video(path, gradient(10, 48, 72), 10, FORMATS[name], INFOTEXT)
    text = described(path)
    assert f"Video: {CODECS[name]}" in text
    assert "72x48" in text
    assert "Duration: 00:00:01.0" in text
    reader = imageio_ffmpeg.read_frames(str(path))
    next(reader)
    assert len(list(reader)) == 10


@pytest.mark.parametrize("name", ["GIF", "WebP"])
def test_what_pillow_sees(name: str, tmp_path: Path) -> None:
    frames = gradient(6, 48, 72)
    path = tmp_path / f"a{FORMATS[name].suffix}"
    write_video(path, frames, 10, FORMATS[name], INFOTEXT)
    with Image.open(path) as image:
        assert (image.size, image.n_frames, image.info["loop"]) == ((72, 48), 6, 0)  # type: ignore[attr-defined]
        durations = []
        for number in range(6):
            image.seek(number)
            image.load()
            durations.append(image.info["duration"])
    assert durations == [100] * 6


@pytest.mark.parametrize("fps", [8, 24, 30, 60, 120])
@pytest.mark.parametrize("name", ["GIF", "WebP"])
def test_pictures_that_move_play_at_their_speed(name: str, fps: float, tmp_path: Path) -> None:
    """Browsers take delays below 20 ms for 100 ms."""
    path = tmp_path / f"a{FORMATS[name].suffix}"
    count = 2 * int(fps)
    # Frames that differ little would be merged.
    frames = torch.randint(0, 256, (count, 8, 8, 3), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    write_video(path, frames, fps, FORMATS[name])
    delays = []
    with Image.open(path) as image:
        for number in range(getattr(image, "n_frames", 1)):
            image.seek(number)
            image.load()
            delays.append(image.info["duration"])
    assert sum(delays) == pytest.approx(2000, abs=20) and min(delays) >= 20
    assert len(delays) == FORMATS[name].count_shown(count, fps) == (count if fps <= 50 else 100)


@pytest.mark.parametrize("name", FORMATS)
def test_a_single_quick_frame_is_written(name: str, tmp_path: Path) -> None:
    path = tmp_path / f"a{FORMATS[name].suffix}"
    write_video(path, gradient(1, 16, 16), 120, FORMATS[name])
    assert path.stat().st_size
    assert FORMATS[name].count_shown(1, 120) == 1


def test_png_frames_are_exact(tmp_path: Path) -> None:
    frames = gradient(4, 16, 24)
    write_video(tmp_path / "a", frames, 8, FORMATS["PNG frames"], INFOTEXT)
    assert sorted(os.listdir(tmp_path / "a")) == [f"0000{number}.png" for number in range(4)]
    for number in range(4):
        image = read_frame(tmp_path / "a", number)
        assert image.tobytes() == frames[number].numpy().tobytes()
        assert read_tags(tmp_path / "a" / f"0000{number}.png") == INFOTEXT


@pytest.mark.parametrize("name", [name for name in FORMATS if name != "PNG frames"])
def test_the_infotext_comes_back(name: str, tmp_path: Path) -> None:
    path = tmp_path / f"a{FORMATS[name].suffix}"
    write_video(path, gradient(2, 16, 16), 8, FORMATS[name], INFOTEXT)
    assert read_tags(path) == INFOTEXT
    write_video(path, gradient(2, 16, 16), 8, FORMATS[name])
    with pytest.raises(UnreadableFile, match="contains no settings"):
        read_tags(path)


@settings(max_examples=25, deadline=None)
@given(text=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1).filter(str.strip))
def test_any_infotext_comes_back(text: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("any")
    for name in ("MP4", "WebM", "GIF", "WebP"):
        path = folder / f"a{FORMATS[name].suffix}"
        write_video(path, gradient(1, 16, 16), 8, FORMATS[name], text)
        assert read_tags(path) == text, name


@pytest.mark.parametrize("name", ["MP4", "WebM"])
def test_old_macs_line_ends_come_back(name: str, tmp_path: Path) -> None:
    path = tmp_path / f"a{FORMATS[name].suffix}"
    write_video(path, gradient(1, 16, 16), 8, FORMATS[name], "a\rb\r\nSteps: 3")
    assert read_tags(path) == "a\rb\r\nSteps: 3"


def test_a_long_infotext_comes_back(tmp_path: Path) -> None:
    text = "long prompt, " * 5000
    write_video(tmp_path / "a.mp4", gradient(1, 16, 16), 8, MP4, text)
    assert read_tags(tmp_path / "a.mp4") == text


@pytest.mark.parametrize("name", FORMATS)
def test_the_same_frames_give_the_same_bytes(name: str, tmp_path: Path) -> None:
    paths = [tmp_path / f"{letter}{FORMATS[name].suffix}" for letter in "ab"]
    for path in paths:
        write_video(path, gradient(3, 16, 16), 8, FORMATS[name], INFOTEXT)
    files = [path / "00000.png" if path.is_dir() else path for path in paths]
    assert files[0].read_bytes() == files[1].read_bytes()


@pytest.mark.parametrize("seconds", [0.016, 0.3, 9.0])
@pytest.mark.parametrize(("name", "codec"), [("MP4", "aac"), ("WebM", "opus")])
def test_a_soundtrack_is_cut_or_looped_to_length(name: str, codec: str, seconds: float, tmp_path: Path) -> None:
    track = sound(tmp_path / "it's a -track.wav", seconds)
    path = tmp_path / f"a{FORMATS[name].suffix}"
    write_video(path, gradient(20, 16, 16), 10, FORMATS[name], INFOTEXT, Sound(str(track)))
    assert f"Audio: {codec}" in described(path)
    assert abs(float(length_of(path)) - 2) < 0.15


def test_what_is_no_sound_is_refused(tmp_path: Path) -> None:
    silent, text = tmp_path / "silent.mp4", tmp_path / "text.wav"
    write_video(silent, gradient(2, 16, 16), 8, MP4)
    text.write_text("no sound")
    empty = sound(tmp_path / "empty.wav", 0)
    for path in (
        silent,
        text,
        empty,
        tmp_path / "missing.wav",
        "https://example.org/a.mp3",
        "-y",
        "concat:/etc/passwd",
    ):
        with pytest.raises(RequestError, match="cannot be read as sound"):
            check_soundtrack(str(path))
    check_soundtrack(str(sound(tmp_path / "ok.wav", 1)))
    assert float(length_of(sounding_late(tmp_path))) > 4
    check_soundtrack(str(tmp_path / "late.mkv"))


def sounding_late(folder: Path) -> Path:
    """A file whose sound begins after its picture has been there for a while."""
    late = folder / "late.mkv"
    track = sound(folder / "1.wav", 1)
    picture = ["-f", "lavfi", "-i", "color=size=16x16:duration=5"]
    command = [find_ffmpeg(), "-v", "error", *picture, "-itsoffset", "4", "-i", str(track), "-c:a", "flac", str(late)]
    subprocess.run(command, check=True, timeout=300)
    return late


def length_of(path: Path) -> str:
    found = re.search(r"Duration: 00:00:(\d\d\.\d\d)", described(path))
    assert found
    return found[1]


@pytest.mark.parametrize("name", ["MP4", "WebM"])
def test_a_soundtrack_that_turned_silent_does_not_keep_ffmpeg_busy(name: str, tmp_path: Path) -> None:
    path = tmp_path / f"a{FORMATS[name].suffix}"
    code = (
        "import sys, torch\nfrom pathlib import Path\nfrom sd_t2v.t2v_helpers.video.formats import FORMATS\n"
        "from sd_t2v.t2v_helpers.video.write import Sound, write_video\n"
        "path, name, sound = sys.argv[1:]\nclip = torch.zeros(8, 16, 16, 3).byte()\n"
        "write_video(Path(path), clip, 8, FORMATS[name], '', Sound(sound))"
    )
    track = sound(tmp_path / "empty.wav", 0)
    command = [sys.executable, "-c", code, str(path), name, str(track)]
    subprocess.run(command, check=True, timeout=120, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert length_of(path) == "01.00"


@pytest.mark.parametrize("name", ["MP4", "WebM"])
def test_a_video_whose_soundtrack_vanished_is_written_without(name: str, tmp_path: Path) -> None:
    path = tmp_path / f"a{FORMATS[name].suffix}"
    said = write_video(path, gradient(8, 16, 16), 8, FORMATS[name], INFOTEXT, Sound(str(tmp_path / "gone.wav")))
    assert "no sound" in said
    assert "gone.wav" in said
    assert "Audio" not in described(path)
    assert read_tags(path) == INFOTEXT
    with pytest.raises(OutputError, match="could not be written to"):
        write_video(tmp_path / "missing" / path.name, gradient(8, 16, 16), 8, FORMATS[name], "", Sound("gone.wav"))


def test_frames_can_be_read_one_by_one(tmp_path: Path) -> None:
    frames = gradient(5, 16, 16)
    write_video(tmp_path / "a.mp4", frames, 8, MP4)
    first, last = (read_frame(tmp_path / "a.mp4", number).getpixel((0, 0))[0] for number in (0, 4))  # type: ignore[index]
    assert abs(first - int(frames[0, 0, 0, 0])) < 4
    assert abs(last - int(frames[4, 0, 0, 0])) < 4
    for number in (5, 99):
        with pytest.raises(UnreadableFile):
            read_frame(tmp_path / "a.mp4", number)


@pytest.mark.parametrize(
    "content", [b"", b"<html>", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"RIFF\0\0\0\0WEBP", b"\0\0\0 ftypisom"]
)
def test_garbage_is_no_video(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "x.mp4"
    path.write_bytes(content)
    with pytest.raises(UnreadableFile):
        read_tags(path)


@pytest.mark.parametrize("kind", ["jpeg", "webp", "png"])
def test_a_picture_with_damaged_exif_holds_no_settings(kind: str, tmp_path: Path) -> None:
    text_for_a_pointer = struct.pack("<HHI4sI", EXIF_IFD, 2, 4, b"abc\0", 0)
    path = tmp_path / f"a.{kind}"
    Image.new("RGB", (16, 16)).save(path, exif=b"Exif\0\0II*\0\x08\0\0\0\x01\0" + text_for_a_pointer)
    with pytest.raises(UnreadableFile):
        read_tags(path)


@pytest.mark.parametrize("name", FORMATS)
def test_a_failing_encoder_leaves_nothing_and_says_where(name: str, tmp_path: Path) -> None:
    kind = FORMATS[name]
    with pytest.raises(OutputError, match=r"could not be written to .*Choose another output folder"):
        write_video(tmp_path / "missing" / f"a{kind.suffix}", gradient(2, 16, 16), 8, kind)
    if not kind.is_folder:
        (tmp_path / f"b{kind.suffix}").mkdir()
        with pytest.raises(OutputError):
            write_video(tmp_path / f"b{kind.suffix}", gradient(2, 16, 16), 8, kind)
        assert os.listdir(tmp_path) == [f"b{kind.suffix}"]


def test_an_ffmpeg_that_dies_midway_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dying = tmp_path / "ffmpeg"
    dying.write_text("#!/bin/sh\nhead -c 100 > /dev/null\necho 'disk on fire' >&2\nexit 1\n")
    dying.chmod(0o755)
    monkeypatch.setattr(imageio_ffmpeg, "get_ffmpeg_exe", lambda: str(dying))
    out = tmp_path / "out"
    out.mkdir()
    with pytest.raises(OutputError, match="disk on fire"):
        write_video(out / "a.mp4", gradient(50, 256, 256), 8, MP4)
    assert os.listdir(out) == []


def test_a_missing_ffmpeg_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def absent() -> str:
        raise RuntimeError("No ffmpeg exe could be found.")

    monkeypatch.setattr(imageio_ffmpeg, "get_ffmpeg_exe", absent)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(OutputError, match="pip install imageio-ffmpeg"):
        find_ffmpeg()


def test_ffmpeg_does_not_hear_the_consoles_ctrl_c(tmp_path: Path) -> None:
    class Interrupting:
        shape = (9, 16, 16, 3)

        def __iter__(self) -> Iterator[torch.Tensor]:
            yield torch.zeros(16, 16, 3, dtype=torch.uint8)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_video(tmp_path / "a.mp4", Interrupting(), 8, MP4)  # type: ignore[arg-type]
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("name", FORMATS)
def test_percent_signs_in_a_path_mean_nothing(name: str, tmp_path: Path) -> None:
    folder = tmp_path / "100%done %03d"
    folder.mkdir()
    path = folder / f"a%d{FORMATS[name].suffix}"
    write_video(path, gradient(2, 16, 16), 8, FORMATS[name], INFOTEXT)
    assert os.listdir(folder) == [path.name]
    assert read_tags(path / "00000.png" if path.is_dir() else path) == INFOTEXT


def playlists(folder: Path) -> Iterator[Path]:
    """Files that are no media but name some beside them."""
    secret = sound(folder / "secret.wav", 1)
    write_video(folder / "secret.mp4", gradient(8, 16, 16), 8, MP4, INFOTEXT)
    for name, text in (
        ("ffconcat", "ffconcat version 1.0\nfile {file}\n"),
        ("m3u8", "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{file}\n#EXT-X-ENDLIST\n"),
    ):
        for file, ending in ((secret, "wav"), (folder / "secret.mp4", "mp4")):
            path = folder / f"{name}.{ending}"
            path.write_text(text.format(file=file.name))
            yield path


def test_no_playlist_is_opened(tmp_path: Path) -> None:
    for path in playlists(tmp_path):
        with pytest.raises(RequestError, match="cannot be read as sound"):
            check_soundtrack(str(path))
        with pytest.raises(UnreadableFile):
            read_tags(path)
        with pytest.raises(UnreadableFile):
            read_frame(path, 0)


def test_a_numbered_series_of_pictures_is_no_video(tmp_path: Path) -> None:
    Image.new("RGB", (16, 16)).save(tmp_path / "a1.png")
    with pytest.raises(UnreadableFile):
        read_frame(tmp_path / "a%d.png", 0)


def test_the_playlists_would_open_without_the_list_of_formats(tmp_path: Path) -> None:
    # An m3u8 under another name is refused by newer versions of ffmpeg anyway.
    for path in playlists(tmp_path):
        if "ffconcat" in path.name:
            command = [find_ffmpeg(), "-protocol_whitelist", "file", "-i", f"file:{path}", "-f", "null", "-"]
            subprocess.run(command, check=True, capture_output=True, timeout=300)


@pytest.mark.parametrize("code", ["mp3", "flac", "aac", "ogg", "wma", "aiff", "mkv", "mov", "avi"])
def test_sound_is_read_from_what_people_have(code: str, tmp_path: Path) -> None:
    path = tmp_path / f"a.{code}"
    subprocess.run(
        [find_ffmpeg(), "-v", "error", "-i", str(sound(tmp_path / "s.wav", 1)), str(path)], check=True, timeout=300
    )
    check_soundtrack(str(path))


def fake_ffmpeg(folder: Path, script: str) -> Path:
    path = folder / "fake-ffmpeg"
    path.write_text(f"#!/bin/bash\n{script}\n")
    path.chmod(0o755)
    return path


WITHOUT_X264 = """
for a; do [ "$a" = libx264 ] && { echo "Unknown encoder 'libx264'" >&2; exit 1; }; done
exec "$REAL" "$@"
"""


@pytest.mark.skipif(os.name == "nt", reason="the fake is a shell script")
@pytest.mark.parametrize(
    ("script", "words"),
    [
        (None, "cannot be started"),
        (WITHOUT_X264, "Unknown encoder 'libx264'"),
        ("exit 0", "ended without a message"),
        ("sleep 1000", "did nothing for 1 seconds and was stopped"),
        ("sleep 1000 & wait", "did nothing for 1 seconds and was stopped"),
    ],
)
def test_an_ffmpeg_of_ones_own_that_is_no_good_is_named_with_a_remedy(
    script: str | None, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REAL", find_ffmpeg())
    monkeypatch.setattr("sd_t2v.t2v_helpers.video.write.TRIAL_PATIENCE", 1)
    path = fake_ffmpeg(tmp_path, script) if script else tmp_path / "gone" / "ffmpeg"
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(path))
    with pytest.raises(OutputError) as caught:
        check_format(MP4)
    said = str(caught.value)
    assert words in said and str(path) in said
    assert "IMAGEIO_FFMPEG_EXE" in said and "unset it" in said and "pip install" not in said
    if script == WITHOUT_X264:
        check_format(FORMATS["GIF"])


@pytest.mark.skipif(os.name == "nt", reason="the fake is a shell script")
def test_an_ffmpeg_that_hangs_is_ended_with_what_it_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sd_t2v.t2v_helpers.video.write.PATIENCE", 1)
    mark = tmp_path / "pid"
    fake = fake_ffmpeg(tmp_path, f"sleep 1000 & echo $! > {mark}; head -c 100000 > /dev/null; wait")
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(fake))
    out = tmp_path / "out"
    out.mkdir()
    with pytest.raises(OutputError, match="did nothing for 1 seconds"):
        write_video(out / "a.mp4", gradient(50, 256, 256), 8, MP4)
    assert os.listdir(out) == []
    assert not is_running(int(mark.read_text()))


def is_running(pid: int) -> bool:
    state = subprocess.run(
        ["ps", "-o", "stat=", "-p", str(pid)], check=False, capture_output=True, text=True, timeout=300
    ).stdout
    return bool(state.strip()) and not state.startswith("Z")


@pytest.mark.skipif(os.name == "nt", reason="the fake is a shell script")
def test_a_slow_ffmpeg_is_not_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sd_t2v.t2v_helpers.video.write.PATIENCE", 1.5)
    fake = fake_ffmpeg(
        tmp_path, 'out="${@: -1}"; for n in 1 2 3 4 5 6; do echo $n >> "$out"; sleep 0.5; done; cat > /dev/null'
    )
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(fake))
    write_video(tmp_path / "a.mp4", gradient(2, 16, 16), 8, MP4)
    assert (tmp_path / "a.mp4").read_text() == "1\n2\n3\n4\n5\n6\n"


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can mount a small disk")
@pytest.mark.parametrize("name", FORMATS)
def test_a_full_disk_is_called_one(name: str, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)], check=False, timeout=300
    ).returncode:
        pytest.skip("nothing can be mounted here")
    try:
        noise = torch.randint(0, 255, (30, 128, 128, 3), dtype=torch.uint8)
        with pytest.raises(OutputError, match=f"could not be written to {disk}: .*There is no free space"):
            write_video(disk / f"a{FORMATS[name].suffix}", noise, 8, FORMATS[name], INFOTEXT)
        assert os.listdir(disk) == []
    finally:
        subprocess.run(["umount", str(disk)], check=True, timeout=300)


def test_free_space_is_named_only_where_it_lacks(tmp_path: Path) -> None:
    for code in (errno.EACCES, errno.EROFS, errno.EIO, errno.ENOTDIR):
        assert "free space" not in str(cannot_write(tmp_path, OSError(code, os.strerror(code))))
    for code in (errno.ENOSPC, errno.EDQUOT):
        assert "no free space" in str(cannot_write(tmp_path, OSError(code, os.strerror(code))))


def test_no_two_formats_write_files_of_the_same_name() -> None:
    suffixes = [entry.suffix for entry in FORMATS.values()]
    assert len(set(suffixes)) == len(suffixes)
