"""Whole runs from a source: what of it reaches the file, its settings and the person."""

import hashlib
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from sd_t2v.miniature.recipe import MODEL_FOLDER
from sd_t2v.modelscope.conditioning.strength import DIFFUSERS
from sd_t2v.t2v_helpers.generation.outcome import Outcome
from sd_t2v.t2v_helpers.generation.run import run
from sd_t2v.t2v_helpers.host import Progress, Stop
from sd_t2v.t2v_helpers.hosts.console import ConsoleHost
from sd_t2v.t2v_helpers.infotext import read_infotext
from sd_t2v.t2v_helpers.models.folders import ModelFolder
from sd_t2v.t2v_helpers.request import ITS_OWN, KEPT, GenerationRequest
from sd_t2v.t2v_helpers.settings import OUTPUT_FOLDER
from sd_t2v.t2v_helpers.video.ffmpeg import find_ffmpeg
from sd_t2v.t2v_helpers.video.frames import read_frame
from sd_t2v.t2v_helpers.video.metadata import read_tags
from sd_t2v.t2v_helpers.video.pictures import read_picture
from sd_t2v.t2v_helpers.video.source import FIT, Piece, Shape, read_piece

MODEL = ModelFolder("miniature", MODEL_FOLDER)


class Person(ConsoleHost):
    """Interrupts once progress reads like `at`."""

    def __init__(self, outputs: Path, at: str = "-") -> None:
        super().__init__({OUTPUT_FOLDER: str(outputs)}, "cpu")
        self._at, self.seen = at, list[Progress]()

    def show_progress(self, progress: Progress) -> None:
        self.seen.append(progress)

    def stop_request(self) -> Stop | None:
        return "interrupt" if self.seen and self.seen[-1].text.startswith(self._at) else None


@pytest.fixture
def film(tmp_path: Path) -> Path:
    """Three seconds of moving pictures at 12 frames per second, with a tone that begins after 2 seconds."""
    path = tmp_path / "a film.mp4"
    inputs = ("-f", "lavfi", "-i", "testsrc=s=64x64:r=12:d=3", "-f", "lavfi", "-i", "sine=d=1,adelay=2000")
    subprocess.run([find_ffmpeg(), "-v", "error", *inputs, "-pix_fmt", "yuv420p", str(path)], check=True, timeout=120)
    return path


def make(tmp_path: Path, source: Path, person: Person | None = None, **changes: Any) -> Outcome:
    values = {"width": 64, "height": 64, "frames": 4, "steps": 3, "cfg_scale": 2, "seed": 5, "strength": 0.5} | changes
    return run(
        person or Person(tmp_path / "out"), MODEL, GenerationRequest(prompt="a ball", source=str(source), **values)
    )


def loudness(path: Path) -> float:
    command = [find_ffmpeg(), "-v", "error", "-i", str(path), "-map", "0:a:0", "-f", "s16le", "-"]
    samples = subprocess.run(command, check=True, capture_output=True, timeout=120).stdout
    return float(torch.frombuffer(bytearray(samples), dtype=torch.int16).float().abs().mean())


def test_the_settings_name_the_source_and_restore_everything_else(tmp_path: Path, film: Path) -> None:
    outcome = make(tmp_path, film, source_start=0.5, resize_mode="fit")
    assert not outcome.error and not outcome.notes
    text = read_tags(outcome.videos[0].files[0])
    digest = hashlib.sha256(film.read_bytes()).hexdigest()[:10]
    assert "Denoising strength: 0.5" in text and f"Source: a film.mp4, Source hash: {digest}" in text
    fields = {name: value for name, value in read_infotext(text).items() if name != "model"}
    again = run(Person(tmp_path / "again"), MODEL, GenerationRequest(source=str(film), **fields))
    assert again.videos[0].files[0].read_bytes() == outcome.videos[0].files[0].read_bytes()


def test_with_a_small_strength_the_source_comes_out(tmp_path: Path, film: Path) -> None:
    outcome = make(tmp_path, film, strength=0, strength_meaning=DIFFUSERS, source_start=1)
    found = read_piece(outcome.videos[0].files[0], Piece(0, 8, 4), Shape(64, 64))
    there, elsewhere = (read_piece(film, Piece(start, 8, 4), Shape(64, 64)) for start in (1, 2))
    gaps = [float((found.float() - frames.float()).abs().mean()) for frames in (there, elsewhere)]
    assert gaps[0] < gaps[1]


def test_a_short_source_makes_a_short_video_and_says_so(tmp_path: Path, film: Path) -> None:
    outcome = make(tmp_path, film, frames=99, source_start=2)
    assert outcome.videos[0].request.frames == 8
    assert outcome.notes == ["The source has only 8 frames from there on, so the video has 8, too."]


def test_its_own_rate_becomes_the_videos(tmp_path: Path, film: Path) -> None:
    (video,) = make(tmp_path, film, source_rate=ITS_OWN).videos
    assert video.request.fps == 12 and "FPS: 12" in video.infotext


def test_its_sound_is_kept_on_request_from_where_the_video_starts(tmp_path: Path, film: Path) -> None:
    silent, early, late = (
        make(tmp_path, film, **changes).videos[0].files[0]
        for changes in ({}, {"source_sound": KEPT}, {"source_sound": KEPT, "source_start": 2})
    )
    with pytest.raises(subprocess.CalledProcessError):
        loudness(silent)
    assert loudness(early) < 10 < loudness(late)


def test_a_source_without_sound_has_none_to_keep(tmp_path: Path, film: Path) -> None:
    silent = tmp_path / "silent.mp4"
    subprocess.run(
        [find_ffmpeg(), "-v", "error", "-i", str(film), "-an", "-c", "copy", str(silent)], check=True, timeout=60
    )
    outcome = make(tmp_path, silent, source_sound=KEPT)
    assert outcome.notes == ["The source 'silent.mp4' has no sound that could be kept."]


def test_a_batch_reads_and_encodes_it_once(tmp_path: Path, film: Path) -> None:
    person = Person(tmp_path / "out")
    outcome = make(tmp_path, film, person, batch_count=2)
    assert len(outcome.videos) == 2
    assert sum(progress.text.startswith("encoding the source 4/4") for progress in person.seen) == 1
    assert outcome.videos[0].files[0].read_bytes() != outcome.videos[1].files[0].read_bytes()
    shares = [progress.video + progress.share for progress in person.seen]
    assert shares == sorted(shares)


@pytest.mark.parametrize("at", ["encoding the source 2/4", "sampling 1/2", "decoding 2/4"])
def test_interrupt_acts_in_every_phase(at: str, tmp_path: Path, film: Path) -> None:
    outcome = make(tmp_path, film, Person(tmp_path / "out", at))
    assert outcome.interrupted and not outcome.error and not outcome.videos


def test_deleting_it_meanwhile_does_no_harm(tmp_path: Path, film: Path) -> None:
    class Deletes(Person):
        def show_progress(self, progress: Progress) -> None:
            film.unlink(missing_ok=True)
            super().show_progress(progress)

    outcome = make(tmp_path, film, Deletes(tmp_path / "out"), batch_count=2)
    assert not outcome.error and len(outcome.videos) == 2


@pytest.mark.parametrize("name", ["gone.mp4", "text.mp4"])
def test_an_unusable_source_is_an_error_before_the_model_is_loaded(name: str, tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_text("no video")
    person = Person(tmp_path / "out")
    outcome = make(tmp_path, tmp_path / name, person)
    assert name in str(outcome.error) and not person.seen
    assert not list((tmp_path / "out").rglob("*.*"))


def test_a_result_in_any_format_that_is_a_video_can_be_the_next_source(tmp_path: Path, film: Path) -> None:
    first = make(tmp_path, film, formats="MP4,GIF,WebM")
    for file in first.videos[0].files:
        second = make(tmp_path / file.suffix, shutil.copy(file, tmp_path / file.name))
        assert not second.error and second.videos[0].request.frames == 4


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"image": ("--1=x.png",)}, "FRAME=FILE"),
        ({"image": ("9" * 5000 + "=x.png",)}, "FRAME=FILE"),
        ({"image": ("x.png",)}, "FRAME=FILE"),
        ({"image": ("4=x.png",)}, "frames are 0 to 3"),
        ({"image": ("3=x.png", "-1=x.png")}, "Two images are for frame 3"),
        ({"image": ("0=gone.png",)}, "no file 'gone.png'"),
        ({"mask_box": "1,2,3"}, "four numbers"),
        ({"mask_box": "0,0,0,9"}, "nothing inside the picture"),
        ({"mask_box": "64,0,9,9"}, "nothing inside the picture"),
        ({"mask": "gone.png"}, "no file 'gone.png'"),
        ({"mask": "black.png"}, "all black"),
        ({"image": ("0=text.png",)}, "cannot be read"),
    ],
)
def test_unusable_pictures_and_boxes_are_said_before_the_run(
    changes: dict[str, Any], words: str, tmp_path: Path, film: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (8, 8), (200, 30, 40)).save("x.png")
    Image.new("RGB", (30, 20)).save("black.png")
    Path("text.png").write_text("no picture")
    person = Person(tmp_path / "out")
    assert words in str(make(tmp_path, film, person, **changes).error)
    assert not person.seen


def test_a_mask_without_a_source_is_refused(tmp_path: Path) -> None:
    outcome = run(
        Person(tmp_path), MODEL, GenerationRequest(prompt="x", mask_box="0,0,8,8", width=64, height=64, frames=2)
    )
    assert "needs a source" in str(outcome.error)


def test_a_white_mask_is_named_and_changes_everything(tmp_path: Path, film: Path) -> None:
    Image.new("L", (10, 10), 255).save(tmp_path / "white.png")
    outcome = make(tmp_path, film, mask=str(tmp_path / "white.png"), mask_softness=0)
    assert outcome.notes == ["The mask is all white, so it keeps nothing of the source."]


def test_thin_and_deep_pictures_are_read_as_they_are(tmp_path: Path) -> None:
    Image.new("L", (1, 3000), 200).save(tmp_path / "thin.png")
    Image.fromarray(np.full((8, 8), 32_768, np.uint16)).save(tmp_path / "deep.png")
    Image.new("RGBA", (8, 8), (255, 0, 0, 0)).save(tmp_path / "clear.png")
    assert read_picture(tmp_path / "thin.png", Shape(64, 32, FIT)).float().mean() < 20
    assert abs(float(read_picture(tmp_path / "deep.png", Shape(8, 8)).float().mean()) - 127.5) < 1
    assert int(read_picture(tmp_path / "clear.png", Shape(8, 8)).min()) == 255


def test_the_strength_is_always_named(tmp_path: Path, film: Path) -> None:
    (video,) = make(tmp_path, film, strength=0.75).videos
    assert "Denoising strength: 0.75" in video.infotext and "Strength as in: WebUI" in video.infotext


def test_the_border_that_fitting_adds_is_painted(tmp_path: Path) -> None:
    wide = np.zeros((32, 64, 3), np.uint8)
    wide[:] = (237, 237, 232)
    wide[10:22, 26:38] = (219, 31, 36)
    Image.fromarray(wide).save(tmp_path / "wide.png")
    request = GenerationRequest(
        prompt="a ball", image=(f"0={tmp_path / 'wide.png'}",), resize_mode=FIT, mask_box="border", mask_softness=0,
        width=64, height=64, frames=4, steps=8, cfg_scale=2, seed=3, formats="PNG frames",
    )  # fmt: skip
    (video,) = run(Person(tmp_path / "out"), MODEL, request).videos
    for number in range(4):
        frame = np.array(read_frame(video.files[0], number))
        assert (frame[16:48] == wide).all()
        # Black bars became something.
        assert frame[:12].mean() > 100 and frame[-12:].mean() > 100


@pytest.mark.parametrize(
    ("changes", "words"), [({"resize_mode": "crop"}, "what the resize mode 'fit' adds"), ({}, "so it has no border")]
)
def test_a_source_without_a_border_has_none_to_paint(
    changes: dict[str, Any], words: str, tmp_path: Path, film: Path
) -> None:
    outcome = make(tmp_path, film, mask_box="border", **{"resize_mode": FIT} | changes)
    assert words in str(outcome.error)
