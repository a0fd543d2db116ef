"""What follows a clip: it is continued, enlarged, made smoother; and each stage keeps what the one before has made."""

import re
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from torch import Tensor

from sd_t2v.miniature.recipe import MODEL_FOLDER
from sd_t2v.modelscope.conditioning.extend import count_held
from sd_t2v.modelscope.errors import RequestError
from sd_t2v.t2v_helpers.generation import stages as module
from sd_t2v.t2v_helpers.generation.outcome import Outcome
from sd_t2v.t2v_helpers.generation.run import DRIFTED, run
from sd_t2v.t2v_helpers.host import Progress, Stop
from sd_t2v.t2v_helpers.hosts.console import ConsoleHost
from sd_t2v.t2v_helpers.infotext import read_infotext
from sd_t2v.t2v_helpers.models.folders import ModelFolder
from sd_t2v.t2v_helpers.request import BY_MODEL, KEEP_SOURCE, LANCZOS, LATENT, MAKE_THEM, OFF, SAME, GenerationRequest
from sd_t2v.t2v_helpers.settings import OUTPUT_FOLDER
from sd_t2v.t2v_helpers.video.ffmpeg import find_ffmpeg
from sd_t2v.t2v_helpers.video.formats import FORMATS
from sd_t2v.t2v_helpers.video.frames import read_frame
from sd_t2v.t2v_helpers.video.interpolate import interpolate_motion
from sd_t2v.t2v_helpers.video.write import write_video

MODEL = ModelFolder("miniature", MODEL_FOLDER)
FRAMES = 8


class Person(ConsoleHost):
    """Asks for something once progress reads like `at`."""

    def __init__(self, outputs: Path, at: str = "-", asks: Stop = "interrupt") -> None:
        super().__init__({OUTPUT_FOLDER: str(outputs)}, "cpu")
        self._at, self._asks = at, asks
        self._stop: Stop | None = None
        self.seen: list[Progress] = []
        self.enlarged: list[tuple[int, int]] = []

    def show_progress(self, progress: Progress) -> None:
        self.seen.append(progress)
        if progress.text.startswith(self._at):
            self._stop, self._at = self._asks, "-"

    def stop_request(self) -> Stop | None:
        stop, self._stop = self._stop, None
        return stop

    def upscalers(self) -> dict[str, Any]:
        return {"Mirror": self._mirror}

    def _mirror(self, picture: Image.Image, width: int, height: int) -> Image.Image:
        self.enlarged.append((width, height))
        # As some do, it enlarges by factors of its own: the rest is left to others.
        return ImageOps.mirror(picture).resize((3 * picture.width, 3 * picture.height))


def make(tmp_path: Path, person: Person | None = None, **changes: Any) -> Outcome:
    values = {"width": 64, "height": 64, "frames": FRAMES, "steps": 3, "cfg_scale": 2, "seed": 5}
    request = GenerationRequest(prompt="a red ball", formats="PNG frames", **values | changes)
    return run(person or Person(tmp_path), MODEL, request)


def write_long_source(folder: Path) -> Path:
    """Write a white video of 24 frames in 3 seconds."""
    frames = torch.tensor([237, 237, 232], dtype=torch.uint8).expand(24, 64, 64, 3).clone()
    write_video(folder / "long.mp4", frames, 8, FORMATS["MP4"])
    return folder / "long.mp4"


def frames_of(outcome: Outcome, number: int = 0) -> Tensor:
    folder = outcome.videos[number].files[0]
    pictures = [read_frame(folder, index) for index in range(len(list(folder.iterdir())))]
    return torch.stack([torch.from_numpy(np.array(picture)) for picture in pictures])


@pytest.fixture
def film(tmp_path: Path) -> Path:
    path = tmp_path / "film.mkv"
    command = [find_ffmpeg(), "-v", "error", "-f", "lavfi", "-i", "testsrc=s=64x64:r=8:d=1", "-c:v", "ffv1", str(path)]
    subprocess.run(command, check=True, timeout=60)
    return path


def test_extending_keeps_what_there_is_and_adds_clips(tmp_path: Path) -> None:
    plain, longer = make(tmp_path / "a"), make(tmp_path / "b", extend=2)
    assert not longer.error
    held = count_held(FRAMES)
    frames = frames_of(longer)
    assert len(frames) == longer.videos[0].frames == FRAMES + 2 * (FRAMES - held)
    assert torch.equal(frames[: FRAMES - held], frames_of(plain)[: FRAMES - held])
    again = GenerationRequest(**{k: v for k, v in read_infotext(longer.videos[0].infotext).items() if k != "model"})
    assert (again.extend, again.frames) == (2, FRAMES)


def test_a_video_of_somebody_else_is_continued_as_it_is_from_its_end(tmp_path: Path) -> None:
    """All of it, in its own size and rate, whatever the fields say."""
    path = tmp_path / "long.mkv"
    picture = "testsrc=s=76x60:r=10:d=2"
    command = [find_ffmpeg(), "-v", "error", "-f", "lavfi", "-i", picture, "-c:v", "ffv1", str(path)]
    subprocess.run(command, check=True, timeout=60)
    outcome = make(tmp_path / "out", source=str(path), source_use=KEEP_SOURCE, extend=1)
    kept = make(tmp_path / "kept", source=str(path), source_use=KEEP_SOURCE)
    held = count_held(FRAMES)
    # The miniature knows nothing of such pictures, so the video before it drifts is saved, too.
    frames, own = frames_of(outcome, -1), frames_of(kept)
    assert own.shape == (20, 56, 72, 3) and kept.videos[0].request.fps == 10
    assert torch.equal(frames[: 20 - held], own[: 20 - held])
    assert len(frames) == 20 + FRAMES - held
    assert "Precision" in outcome.videos[-1].infotext


def test_a_source_that_is_only_made_smoother_needs_no_model(tmp_path: Path, film: Path) -> None:
    nobody = ModelFolder("missing", tmp_path / "missing")
    values = {"width": 64, "height": 64, "frames": FRAMES, "interpolate": 2, "formats": "PNG frames"}
    request = GenerationRequest(source=str(film), source_use=KEEP_SOURCE, **values)  # type: ignore[arg-type]
    outcome = run(Person(tmp_path / "out"), nobody, request)
    assert not outcome.error
    assert len(frames_of(outcome)) == 2 * FRAMES - 1


@pytest.mark.parametrize("factor", [2, 4])
@pytest.mark.parametrize("by", ["motion", BY_MODEL])
def test_interpolation_keeps_every_frame_and_the_length(by: str, factor: int, tmp_path: Path) -> None:
    plain, smooth = make(tmp_path / "a"), make(tmp_path / "b", interpolate=factor, interpolate_by=by)
    frames = frames_of(smooth)
    assert len(frames) == (FRAMES - 1) * factor + 1
    assert torch.equal(frames[::factor], frames_of(plain))
    assert not torch.equal(frames[1::factor], frames_of(plain)[:-1])


def test_motion_is_interpolated_along_its_way() -> None:
    frames = torch.zeros(8, 64, 64, 3, dtype=torch.uint8)
    for number, frame in enumerate(frames):
        frame[20:36, 4 + 6 * number : 20 + 6 * number] = 220
    found = interpolate_motion(frames, 2)
    columns = torch.arange(64).float()
    light = found.float().sum((1, 3))
    centres = (light * columns).sum(1) / light.sum(1)
    assert float((centres.diff()[2:-2] - 3).abs().max()) < 1


@pytest.mark.parametrize("upscaler", [LATENT, LANCZOS])
def test_a_second_pass_enlarges_and_changes_the_video(upscaler: str, tmp_path: Path) -> None:
    small, large = make(tmp_path / "a"), make(tmp_path / "b", hires=SAME, hires_scale=1.5, hires_upscaler=upscaler)
    assert frames_of(large).shape == (FRAMES, 96, 96, 3)
    weak = make(tmp_path / "c", hires=SAME, hires_scale=1.5, hires_upscaler=upscaler, hires_strength=0)
    gaps = []
    for outcome in (weak, large):
        shrunk = torch.nn.functional.interpolate(frames_of(outcome).permute(0, 3, 1, 2).float(), (64, 64), mode="area")
        gaps.append(float((shrunk.permute(0, 2, 3, 1) - frames_of(small)).abs().mean()))
    assert gaps[0] < gaps[1]


def test_an_upscaler_of_the_host_is_used_by_name(tmp_path: Path) -> None:
    person = Person(tmp_path)
    assert not make(tmp_path, person, hires=SAME, hires_upscaler="Mirror").error
    assert person.enlarged == [(32, 32), *[(128, 128)] * FRAMES]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"hires": "nowhere"}, r"no model 'nowhere'.*Choose one of these"),
        ({"hires": SAME, "hires_upscaler": "Magic"}, r"no upscaler 'Magic'.*Latent, Lanczos, Mirror"),
    ],
)
def test_what_does_not_exist_is_named_before_the_run(changes: dict[str, str], words: str, tmp_path: Path) -> None:
    person = Person(tmp_path)
    outcome = make(tmp_path, person, **changes)
    assert re.search(words, str(outcome.error)) and not person.seen


def test_a_second_model_from_a_folder_that_is_none_is_named(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    request = GenerationRequest(prompt="x", hires="empty", width=64, height=64, frames=2, steps=1)
    person = Person(tmp_path)
    outcome = run(person, MODEL, request, second=ModelFolder("empty", tmp_path / "empty"))
    assert "is missing" in str(outcome.error) and not person.seen


ALL = {"extend": 1, "hires": SAME, "hires_scale": 1, "interpolate": 2, "interpolate_by": BY_MODEL}


@pytest.mark.parametrize(
    ("at", "frames"),
    [
        ("extending 1 of 1: sampling 2/3", FRAMES),
        ("Hires. fix: enlarging 3/14", 14),
        ("Hires. fix: encoding the source 2/14", 14),
        ("Hires. fix: sampling 1/", 14),
        ("in between: decoding 2/27", 14),
        ("decoding 8/8", FRAMES),
    ],
)
@pytest.mark.parametrize("asks", ["interrupt", "skip"])
def test_a_stop_keeps_what_the_stage_before_has_made(at: str, frames: int, asks: Stop, tmp_path: Path) -> None:
    outcome = make(tmp_path, Person(tmp_path, at, asks), **ALL)
    assert not outcome.error
    assert (outcome.interrupted, outcome.skipped) == (asks == "interrupt", int(asks == "skip"))
    (video,) = outcome.videos
    assert (video.frames, video.finished) == (frames, False)


def test_progress_only_rises(tmp_path: Path) -> None:
    person = Person(tmp_path)
    assert not make(tmp_path, person, **ALL).error
    shares = [progress.share for progress in person.seen]
    assert shares == sorted(shares) and shares[-1] == 1


def test_an_error_in_a_later_stage_keeps_what_the_stage_before_has_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise ZeroDivisionError("boom")

    monkeypatch.setattr(module, "interpolate_motion", fail)
    outcome = make(tmp_path, interpolate=2)
    assert isinstance(outcome.error, ZeroDivisionError)
    assert [video.frames for video in outcome.videos] == [FRAMES]


def test_what_drifts_is_said_and_the_video_before_is_saved_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "has_drifted", lambda *_: True)
    outcome = make(tmp_path, extend=2)
    assert outcome.notes == [DRIFTED]
    before, after = (read_infotext(video.infotext) for video in outcome.videos)
    assert (before["extend"], after["extend"]) == (0, 2)
    assert [video.frames for video in outcome.videos] == [FRAMES, FRAMES + 2 * (FRAMES - count_held(FRAMES))]


def test_without_a_wish_there_is_one_stage() -> None:
    request = GenerationRequest()
    assert (request.extend, request.hires, request.interpolate) == (0, OFF, 1)


def test_a_long_source_is_made_in_several_clips_that_are_joined(tmp_path: Path) -> None:
    """With almost no strength, so that frame by frame it is the source."""
    frames = torch.tensor([237, 237, 232], dtype=torch.uint8).expand(32, 64, 64, 3).clone()
    for number, frame in enumerate(frames):
        frame[24:40, 8 + number : 24 + number] = torch.tensor([219, 31, 36], dtype=torch.uint8)
    write_video(tmp_path / "long.mp4", frames, 8, FORMATS["MP4"])
    weak = {"strength": 0, "steps": 10, "source": str(tmp_path / "long.mp4"), "source_start": 0.5}
    outcome = make(tmp_path / "out", source_length=2.5, **weak)
    assert not outcome.error
    found = frames_of(outcome)
    assert len(found) == outcome.videos[0].frames == 20
    red = (found[..., 1].float() < 128).float().sum(1)
    centres = (red * torch.arange(64)).sum(1) / red.sum(1)
    assert float((centres - (4 + 15.5 + torch.arange(20))).abs().max()) < 1.5
    whole = make(tmp_path / "whole", source_length=1000, **weak)
    assert whole.videos[0].frames == 28


def test_a_very_long_video_is_asked_for_first(tmp_path: Path) -> None:
    long = tmp_path / "long.mp4"
    command = [find_ffmpeg(), "-v", "error", "-f", "lavfi", "-i", "color=red:s=16x16:r=8:d=200", str(long)]
    subprocess.run(command, check=True, timeout=60)
    person = Person(tmp_path / "out")
    outcome = make(tmp_path, person, source=str(long), source_length=86_400)
    assert "1,600 frames" in str(outcome.error) and "make them" in str(outcome.error) and not person.seen
    allowed = {"source": str(long), "source_length": 86_400, "long_videos": MAKE_THEM}
    stopped = make(tmp_path, Person(tmp_path / "out", "clip 2 of"), **allowed)
    assert stopped.interrupted and stopped.videos[0].frames == FRAMES


def test_watermark_removal_changes_the_middle_only(tmp_path: Path, film: Path) -> None:
    kept = {"source": str(film), "source_use": KEEP_SOURCE}
    before, after = (frames_of(make(tmp_path / str(on), watermark=on, **kept)) for on in (0, 1))
    changed = (before != after).any(3).any(0)
    assert bool(changed[32, 8:56].all())
    assert not bool(changed[:20].any()) and not bool(changed[48:].any())


def test_a_mask_and_pictures_hold_in_every_clip_of_a_long_source(tmp_path: Path) -> None:
    source = write_long_source(tmp_path)
    picture = Image.new("RGB", (64, 64), (20, 200, 30))
    picture.save(tmp_path / "green.png")
    long = {"source": str(source), "source_length": 3, "strength": 1}
    masked = frames_of(make(tmp_path / "masked", mask_box="0,0,16,16", mask_softness=0, **long))
    assert len(masked) == 24
    assert int((masked[:, 24:, 24:].int() - 237).abs().max()) <= 8
    pictured = frames_of(make(tmp_path / "pictured", image=(f"20={tmp_path / 'green.png'}",), **long))
    greens = (pictured[..., 1].float() - pictured[..., 0].float()).mean((1, 2))
    assert int(greens.argmax()) == 20


@pytest.mark.parametrize("changes", [{"mask_box": "0,0,8,8"}, {"image": ("0=a.png",)}])
def test_what_has_no_effect_on_a_kept_source_is_refused(changes: dict[str, Any], tmp_path: Path, film: Path) -> None:
    outcome = make(tmp_path / "out", source=str(film), source_use=KEEP_SOURCE, extend=1, **changes)
    assert "no effect on a source that is kept" in str(outcome.error)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"width": 640, "hires": SAME, "hires_scale": 4, "steps": 1},
            "second pass over 8 frames is not possible: Width",
        ),
        ({"frames": 501, "interpolate": 2, "interpolate_by": BY_MODEL}, "would have 1,001. Interpolate by motion"),
        ({"frames": 1, "extend": 1}, "at least 2 frames"),
    ],
)
def test_what_later_stages_cannot_do_is_said_before_the_run(
    changes: dict[str, Any], words: str, tmp_path: Path
) -> None:
    person = Person(tmp_path)
    assert words in str(make(tmp_path, person, **changes).error) and not person.seen


@pytest.mark.parametrize(
    ("name", "output"),
    [("a.mp4", ("-c:v", "libx264", "-pix_fmt", "yuv420p")), ("b.webm", ("-c:v", "libvpx", "-live", "1"))],
)
def test_a_video_that_ends_before_its_stated_length_is_no_error(
    name: str, output: tuple[str, ...], tmp_path: Path
) -> None:
    """Sound that is longer than the pictures, and a container that states no length."""
    inputs = ("-f", "lavfi", "-i", "color=white:s=64x64:r=8:d=1.5", "-f", "lavfi", "-i", "sine=d=6")
    subprocess.run([find_ffmpeg(), "-v", "error", *inputs, *output, str(tmp_path / name)], check=True, timeout=60)
    outcome = make(tmp_path / "out", source=str(tmp_path / name), source_length=60)
    assert not outcome.error and outcome.videos[0].frames == 12 and outcome.videos[0].finished


def test_each_video_of_a_batch_has_its_own_seed_in_hold_weights(tmp_path: Path) -> None:
    Image.new("RGB", (64, 64), (219, 31, 36)).save(tmp_path / "red.png")
    weights = {"image": (f"0={tmp_path / 'red.png'}",), "hold_weights": "0:(0), 1:(s % 2 * 2)", "frames": 4}
    both = make(tmp_path / "both", seed=4, batch_count=2, **weights)
    alone = make(tmp_path / "alone", seed=5, **weights)
    assert torch.equal(frames_of(both, 1), frames_of(alone))


def test_a_model_interpolates_by_powers_of_two_only() -> None:
    with pytest.raises(RequestError, match="2, 4 or 8 times, not 3"):
        GenerationRequest(interpolate=3, interpolate_by=BY_MODEL)


def test_the_second_pass_has_the_size_that_is_asked_for(tmp_path: Path) -> None:
    frames = frames_of(make(tmp_path, hires=SAME, hires_width=96, hires_height=72))
    assert frames.shape == (FRAMES, 72, 96, 3)
