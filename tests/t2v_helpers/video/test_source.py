"""Reading a piece of a video: by time, in any shape; and every file that cannot be one has its sentence."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from sd_t2v.modelscope.errors import RequestError
from sd_t2v.t2v_helpers.video import source as module
from sd_t2v.t2v_helpers.video.ffmpeg import find_ffmpeg
from sd_t2v.t2v_helpers.video.formats import FORMATS
from sd_t2v.t2v_helpers.video.source import CROP, FIT, STRETCH, Piece, Shape, examine, read_piece
from sd_t2v.t2v_helpers.video.write import write_video

READABLE = ("MP4", "GIF", "WebM")
Film = Callable[..., Path]


def numbered(count: int, height: int = 48, width: int = 64) -> Tensor:
    """Frames whose grey says their number."""
    greys = torch.linspace(20, 235, count).round().view(count, 1, 1, 1)
    return greys.expand(count, height, width, 3).to(torch.uint8).contiguous()


def numbers(frames: Tensor, count: int) -> list[int]:
    """The number that each frame's grey says."""
    means = frames.float().mean((1, 2, 3))
    return ((means - 20) / 215 * (count - 1)).round().int().tolist()


@pytest.fixture
def film(tmp_path: Path) -> Film:
    """Makes a file with ffmpeg from its own pictures."""

    def make(name: str, *output: str, picture: str = "testsrc=s=64x48:r=8:d=2") -> Path:
        path = tmp_path / name
        command = [find_ffmpeg(), "-v", "error", "-y", "-f", "lavfi", "-i", picture, *output, str(path)]
        subprocess.run(command, check=True, timeout=120)
        return path

    return make


@pytest.mark.parametrize("name", READABLE)
def test_all_frames_at_its_own_rate(name: str, tmp_path: Path) -> None:
    path = tmp_path / f"a{FORMATS[name].suffix}"
    write_video(path, numbered(20), 10, FORMATS[name])
    about = examine(path)
    assert (about.rate, about.width, about.height) == (10, 64, 48)
    found = read_piece(path, Piece(0, 10, 50), Shape(64, 48))
    assert found.shape == (20, 48, 64, 3) and found.dtype == torch.uint8
    # A GIF has 256 colours.
    assert all(abs(number - right) <= (name == "GIF") for right, number in enumerate(numbers(found, 20)))


@pytest.mark.parametrize(
    ("piece", "expected"),
    [
        (Piece(0, 5, 4), [0, 2, 4, 6]),
        (Piece(0, 20, 6), [0, 0, 1, 1, 2, 2]),
        (Piece(1, 10, 3), [10, 11, 12]),
        (Piece(1.5, 5, 99), [15, 17, 19]),
        (Piece(0, 2.5, 99), [0, 4, 8, 12, 16]),
    ],
    ids=str,
)
def test_frames_are_chosen_by_their_time(piece: Piece, expected: list[int], tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    write_video(path, numbered(20), 10, FORMATS["MP4"])
    found = numbers(read_piece(path, piece, Shape(64, 48)), 20)
    assert len(found) == len(expected)
    assert all(abs(number - right) <= (piece.rate < 10) for number, right in zip(found, expected, strict=True))


def test_a_variable_rate_is_read_by_time(film: Film) -> None:
    """Half a second at 20 frames per second, then half a second at 4."""
    chosen = "select='lt(t,0.5)+not(mod(n,5))'"
    gappy = film("a.mkv", "-vf", chosen, "-fps_mode", "vfr", picture="testsrc=s=64x48:r=20:d=1")
    # Nothing says how long the last frame, at 0.75 seconds, is to be seen.
    assert 8 <= len(read_piece(gappy, Piece(0, 10, 99), Shape(64, 48))) <= 10


@pytest.mark.parametrize(
    ("mode", "corner", "middle"),
    [(CROP, (255, 0, 0), (255, 0, 0)), (FIT, (0, 0, 0), (255, 0, 0)), (STRETCH, (255, 0, 0), (255, 0, 0))],
)
def test_another_shape_is_cropped_fitted_or_stretched(
    mode: str, corner: tuple[int, ...], middle: tuple[int, ...], film: Film
) -> None:
    path = film("a.mkv", "-c:v", "ffv1", picture="color=red:s=128x32:r=8:d=1")
    frame = read_piece(path, Piece(0, 8, 2), Shape(64, 64, mode))[0]
    assert (frame[0, 0].int() - torch.tensor(corner)).abs().max() <= 4
    assert (frame[32, 32].int() - torch.tensor(middle)).abs().max() <= 4


def test_cropping_keeps_the_middle_and_stretching_all(film: Film) -> None:
    halves = "color=red:s=64x32:r=8:d=1[a];color=blue:s=64x32:r=8:d=1[b];[a][b]hstack"
    path = film("a.mkv", "-c:v", "ffv1", picture=halves)
    for mode, left in ((CROP, 0.5), (STRETCH, 0.5)):
        frame = read_piece(path, Piece(0, 8, 2), Shape(32, 32, mode))[0].float()
        assert abs(float((frame[:, :, 0] > 128).float().mean()) - left) < 0.1


def test_pixels_that_are_not_square_are_made_so(film: Film) -> None:
    path = film("a.mkv", "-vf", "setsar=2", "-c:v", "ffv1", picture="color=red:s=32x64:r=8:d=1")
    assert int(read_piece(path, Piece(0, 8, 2), Shape(64, 64, FIT))[0, :, :, 0].min()) > 240


def test_a_phones_rotation_is_applied(film: Film, tmp_path: Path) -> None:
    halves = "color=red:s=64x16:r=8:d=1[a];color=blue:s=64x16:r=8:d=1[b];[a][b]vstack"
    flat, turned = film("a.mp4", "-pix_fmt", "yuv420p", picture=halves), tmp_path / "turned.mp4"
    command = [find_ffmpeg(), "-v", "error", "-display_rotation", "90", "-i", str(flat), "-c", "copy", str(turned)]
    subprocess.run(command, check=True, timeout=120)
    assert (examine(turned).width, examine(turned).height) == (32, 64)
    frame = read_piece(turned, Piece(0, 8, 2), Shape(32, 64))[0].float()
    # Red was above blue, and is left of it after a quarter turn.
    assert float(frame[:, 4, 0].mean()) > 180
    assert float(frame[:, 28, 0].mean()) < 80


def test_transparent_parts_are_white(tmp_path: Path) -> None:
    pictures = [Image.new("RGBA", (16, 16), (255, 0, 0, 255 if left else 0)) for left in (0, 1)]
    half = Image.new("RGBA", (32, 16))
    half.paste(pictures[1], (0, 0))
    half.save(tmp_path / "a.gif", save_all=True, append_images=[half.rotate(180)], duration=125, disposal=2)
    frame = read_piece(tmp_path / "a.gif", Piece(0, 8, 2), Shape(32, 16))[0]
    assert frame[8, 4].tolist() == [255, 0, 0]
    assert frame[8, 28].tolist() == [255, 255, 255]


def test_bright_videos_get_ordinary_colours(film: Film) -> None:
    """HDR's own curve would leave a grey of 100 candela at half its brightness."""
    to_hdr = "zscale=tin=bt709:pin=bt709:min=bt709:t=smpte2084:p=bt2020:m=bt2020nc:npl=100,format=yuv420p10le"
    tags = ("-color_trc", "smpte2084", "-color_primaries", "bt2020", "-colorspace", "bt2020nc")
    path = film("a.mkv", "-vf", to_hdr, "-c:v", "ffv1", *tags, picture="color=0xC0C0C0:s=64x48:r=8:d=1")
    assert examine(path).is_hdr
    frame = read_piece(path, Piece(0, 8, 2), Shape(64, 48))[0]
    assert 130 < float(frame.float().mean()) < 225


def test_a_start_deep_in_a_long_video_is_found_quickly(film: Film) -> None:
    path = film("a.mp4", "-g", "240", picture="color=red:s=16x16:r=1:d=14400")
    assert examine(path).seconds == 14_400
    assert len(read_piece(path, Piece(14_000, 1, 24), Shape(16, 16))) == 24


def test_a_video_damaged_in_the_middle_gives_what_can_be_read(film: Film) -> None:
    path = film("a.mkv", "-g", "8", picture="testsrc2=s=64x48:r=8:d=8")
    content = bytearray(path.read_bytes())
    content[len(content) // 2 : len(content) // 2 + 400] = bytes(400)
    path.write_bytes(content)
    assert len(read_piece(path, Piece(0, 8, 64), Shape(64, 48))) >= 24


def no_video(film: Film, tmp_path: Path) -> dict[str, Path]:
    """Files that are no source, by the words of their error."""
    sound = film("sound.m4a", picture="sine=d=1")
    text, empty, cut = tmp_path / "text.mp4", tmp_path / "empty.mp4", tmp_path / "cut.mp4"
    text.write_text("no video")
    empty.touch()
    cut.write_bytes(film("whole.mp4").read_bytes()[:2000])
    playlist = tmp_path / "list.m3u8"
    playlist.write_text("#EXTM3U\n#EXTINF:1,\n/etc/passwd\n")
    picture = tmp_path / "picture.png"
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(picture)
    return {"sound": sound, "text": text, "empty": empty, "cut": cut, "playlist": playlist, "picture": picture}


@pytest.mark.parametrize("kind", ["sound", "text", "empty", "cut", "playlist", "picture"])
def test_what_is_no_video_is_refused(kind: str, film: Film, tmp_path: Path) -> None:
    path = no_video(film, tmp_path)[kind]
    for read in (examine, lambda path: read_piece(path, Piece(0, 8, 8), Shape(64, 64))):
        with pytest.raises(RequestError, match=rf"{path.name}' cannot be read as a video.*Choose a video"):
            read(path)


@pytest.mark.parametrize(
    ("start", "words"), [(9, "2.0 seconds long, so it cannot start at 9"), (1.8, "only one frame from second 1.8 on")]
)
def test_a_start_beyond_the_end_is_refused(start: float, words: str, film: Film) -> None:
    with pytest.raises(RequestError, match=words):
        read_piece(film("a.mp4"), Piece(start, 8, 8), Shape(64, 64))


def test_a_single_frame_is_no_video(film: Film) -> None:
    with pytest.raises(RequestError, match=r"only one frame.*Images"):
        read_piece(film("a.mp4", "-frames:v", "1"), Piece(0, 8, 8), Shape(64, 64))
    assert len(read_piece(film("a.mp4", "-frames:v", "1"), Piece(0, 8, 1), Shape(64, 64))) == 1


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"no file 'gone.mp4'"):
        examine(tmp_path / "gone.mp4")


def test_frames_that_would_fill_the_memory_are_refused(film: Film, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_PIXELS", 64 * 48 - 1)
    with pytest.raises(RequestError, match="cannot be read"):
        examine(film("a.mp4"))


def test_an_ffmpeg_that_does_nothing_is_given_up(film: Film, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path, stuck = film("a.mp4"), tmp_path / "stuck"
    stuck.write_text(f'#!/bin/sh\ncase "$*" in *rawvideo*) sleep 100;; *) exec "{find_ffmpeg()}" "$@";; esac\n')
    stuck.chmod(0o755)
    monkeypatch.setattr(module, "find_ffmpeg", lambda: str(stuck))
    monkeypatch.setattr(module, "PATIENCE", 1)
    with pytest.raises(RequestError, match="did nothing for 1 seconds"):
        read_piece(path, Piece(0, 8, 8), Shape(64, 64))


def test_a_very_flat_video_is_fitted(film: Film) -> None:
    path = film("a.mkv", "-c:v", "ffv1", picture="color=red:s=2000x4:r=8:d=1")
    frame = read_piece(path, Piece(0, 8, 2), Shape(64, 64, FIT))[0]
    assert int(frame[..., 0].max()) > 200 and int(frame[0].max()) < 20


def test_a_start_late_in_a_long_video_is_exact(film: Film) -> None:
    path = film("a.mkv", "-c:v", "ffv1", picture="color=red:s=16x16:r=8:d=12400")
    assert len(read_piece(path, Piece(12_399.5, 8, 9), Shape(16, 16))) == 4
