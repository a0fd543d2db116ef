"""A request to files: with the real miniature, and a host that asks for what a person may ask for."""

import functools
import gc
import os
import re
import shutil
import wave
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image, ImageChops

from sd_t2v.miniature.recipe import MODEL_FOLDER
from sd_t2v.modelscope import device as device_module
from sd_t2v.modelscope.device import Place
from sd_t2v.modelscope.errors import ModelError, RequestError
from sd_t2v.modelscope.memory.plan import BALANCED, LADDER, plan_named
from sd_t2v.modelscope.network.tiny_decoder import TinyDecoder
from sd_t2v.modelscope.prompts import tokens
from sd_t2v.t2v_helpers.generation import lora_tags, save, stages
from sd_t2v.t2v_helpers.generation import run as module
from sd_t2v.t2v_helpers.generation.kept_model import ModelStore
from sd_t2v.t2v_helpers.generation.outcome import Outcome
from sd_t2v.t2v_helpers.generation.run import run
from sd_t2v.t2v_helpers.host import Progress, Stop
from sd_t2v.t2v_helpers.hosts.console import ConsoleHost
from sd_t2v.t2v_helpers.infotext import read_infotext
from sd_t2v.t2v_helpers.models.folders import ModelFolder
from sd_t2v.t2v_helpers.places import VARIABLE, Places
from sd_t2v.t2v_helpers.request import GenerationRequest
from sd_t2v.t2v_helpers.settings import (
    BUDGET,
    KEEP,
    KEEP_ALL,
    KEEP_NOTHING,
    KEEP_UNET,
    MIDDLE_FRAME,
    OUTPUT_FOLDER,
    PLAN,
    PREVIEW,
    PREVIEW_DECODER,
    SAVE_INFOTEXT,
    SAVE_TEXT,
    SAVE_UNFINISHED,
    TAESD_PREVIEW,
    Setting,
)
from sd_t2v.t2v_helpers.video.ffmpeg import OutputError
from sd_t2v.t2v_helpers.video.formats import FORMATS
from sd_t2v.t2v_helpers.video.frames import read_frame
from sd_t2v.t2v_helpers.video.metadata import UnreadableFile, read_tags
from sd_t2v.tests.helpers.support import seen_in
from sd_t2v.tests.helpers.taesd import own_layout

MODEL = ModelFolder("miniature", MODEL_FOLDER)
request = functools.partial(GenerationRequest, width=64, height=64, frames=4, steps=3, cfg_scale=4, seed=5)


class Person(ConsoleHost):
    """Asks for something once progress reads like `at`."""

    def __init__(self, outputs: Path, at: str = "-", asks: Stop = "interrupt", **options: Any) -> None:
        settings = {OUTPUT_FOLDER: str(outputs), KEEP: KEEP_ALL} | {SETTINGS[name]: on for name, on in options.items()}
        super().__init__(settings, "cpu")
        self.at, self.asks = at, asks
        self.seen: list[Progress] = []
        self.previews: list[Image.Image] = []
        self._stop: Stop | None = None

    def show_progress(self, progress: Progress) -> None:
        self.seen.append(progress)
        if progress.text.startswith(self.at):
            self._stop, self.at = self.asks, "-"

    def wants_preview(self, step: int) -> bool:
        return step == 2

    def show_preview(self, image: Image.Image) -> None:
        self.previews.append(image)

    def stop_request(self) -> Stop | None:
        stop, self._stop = self._stop, None
        return stop


SETTINGS: dict[str, Setting] = {
    "plan": PLAN, "budget": BUDGET, "keep": KEEP, "text": SAVE_TEXT, "infotext": SAVE_INFOTEXT,
    "unfinished": SAVE_UNFINISHED, "preview": PREVIEW, "preview_decoder": PREVIEW_DECODER,
}  # fmt: skip


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def test_a_batch_goes_through_all_stages(tmp_path: Path) -> None:
    person = Person(tmp_path)
    outcome = run(person, MODEL, request(batch_count=2, formats="MP4,GIF"))
    assert not outcome.error
    assert names(tmp_path) == ["00000-5.gif", "00000-5.mp4", "00001-6.gif", "00001-6.mp4"]
    texts = [progress.text for progress in person.seen]
    assert {"sampling 2/3, video 1 of 2", "decoding 4/4, video 2 of 2", "saving, video 2 of 2"} <= set(texts)
    shares = [progress.video + progress.share for progress in person.seen]
    assert shares == sorted(shares)
    assert [video.request.seed for video in outcome.videos] == [5, 6]


@pytest.mark.parametrize("plan", [plan.name for plan in LADDER])
def test_every_memory_plan_makes_the_video_and_is_told(
    plan: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    outcome = run(Person(tmp_path, plan=plan), MODEL, request())
    assert outcome.plan == plan_named(plan) and not outcome.error and len(outcome.videos) == 1
    assert re.search(rf"4 frames: needs about \d+ MB of .* GB free \(plan: {plan}\)", capsys.readouterr().out)


@pytest.mark.parametrize(
    ("budget", "words"), [(-1.0, "more than 0 GB"), (0.011, r"There is room for \d+ frames of this size")]
)
def test_a_budget_that_allows_nothing_is_an_error_before_the_run(budget: float, words: str, tmp_path: Path) -> None:
    outcome = run(Person(tmp_path, budget=budget), MODEL, request(frames=500))
    assert re.search(words, str(outcome.error)), str(outcome.error)
    assert names(tmp_path) == []


def test_tags_and_prompts_are_parsed_once_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parsed: dict[str, list[str]] = {"split_tags": [], "parse_emphasis": []}

    def watch(where: Any, name: str) -> None:
        real = getattr(where, name)
        monkeypatch.setattr(where, name, lambda text: parsed[name].append(text) or real(text))

    watch(lora_tags, "split_tags")
    watch(tokens, "parse_emphasis")
    # One plan is tried before the one that fits.
    outcome = run(Person(tmp_path, budget=0.03), MODEL, request(prompt="once", negative_prompt="twice", batch_count=2))
    assert (len(outcome.videos), outcome.plan) == (2, plan_named("small"))
    assert parsed == {"split_tags": ["once", "twice"], "parse_emphasis": ["once", "twice"]}


def test_plans_can_change_from_run_to_run_while_the_model_stays(tmp_path: Path) -> None:
    plans = ("fast", "smallest", "balanced", "small")
    files = [run(Person(tmp_path / plan, plan=plan), MODEL, request()).videos[0].files[0] for plan in plans]
    frames = [read_frame(file, 3) for file in files]
    assert all(largest < 12 for frame in frames for _, largest in ImageChops.difference(frame, frames[0]).getextrema())


def test_memory_that_runs_out_is_told_and_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    unet, failed = module.STORE.take(MODEL, WHERE).model.unet, []
    real = unet.predict_noise

    def predict_noise(*args: Any, **kwargs: Any) -> Any:
        if not failed:
            failed.append(True)
            raise torch.OutOfMemoryError("out of memory")
        return real(*args, **kwargs)

    monkeypatch.setattr(unet, "predict_noise", predict_noise)
    outcome = run(Person(tmp_path, plan="balanced"), MODEL, request(batch_count=2))
    assert outcome.notes == ["Memory ran out with the plan 'balanced'; continuing with 'small'."]
    assert len(outcome.videos) == 2 and not outcome.error
    assert outcome.plan == plan_named("small")


def test_the_same_settings_give_the_same_file(tmp_path: Path) -> None:
    first = run(Person(tmp_path / "a"), MODEL, request(prompt="a red ball")).videos[0].files[0]
    again = GenerationRequest(**{k: v for k, v in read_infotext(read_tags(first)).items() if k != "model"})
    second = run(Person(tmp_path / "b"), MODEL, again).videos[0].files[0]
    assert first.read_bytes() == second.read_bytes()
    batch = run(Person(tmp_path / "c"), MODEL, request(prompt="a red ball", seed=4, batch_count=2)).videos
    assert batch[1].files[0].read_bytes() == first.read_bytes()


def test_the_judge_sees_what_was_asked_for_in_the_file(tmp_path: Path) -> None:
    wish = request(prompt="a blue square moving down", frames=8, steps=25, formats="PNG frames")
    folder = run(Person(tmp_path), MODEL, wish).videos[0].files[0]
    assert seen_in(folder) == ("blue", "square", "down")


@pytest.mark.parametrize("at", ["loading", "reading", "sampling 2/3", "decoding 2/4"])
def test_interrupt_acts_at_once_and_keeps_what_is_finished(at: str, tmp_path: Path) -> None:
    person = Person(tmp_path, f"{at}, video 2" if "/" in at else f"{at}")
    if "/" not in at:
        outcome = run(person, MODEL, request(batch_count=3))
        assert (outcome.interrupted, outcome.videos, outcome.error) == (True, [], None)
        return
    outcome = run(person, MODEL, request(batch_count=3))
    assert (outcome.interrupted, len(outcome.videos), outcome.error) == (True, 1, None)
    assert names(tmp_path) == ["00000-5.mp4"]
    assert person.seen[-1].text.startswith(at)


def test_interrupt_saves_the_unfinished_video_on_request(tmp_path: Path) -> None:
    person = Person(tmp_path, "sampling 2/3", unfinished=True)
    outcome = run(person, MODEL, request())
    assert [video.finished for video in outcome.videos] == [False]
    assert names(tmp_path) == ["00000-5.mp4"]


def test_a_second_interrupt_ends_the_unfinished_video_too(tmp_path: Path) -> None:
    class Impatient(Person):
        def show_progress(self, progress: Progress) -> None:
            super().show_progress(progress)
            if progress.text == "decoding 2/4":
                self._stop = "interrupt"

    outcome = run(Impatient(tmp_path, "sampling 2/3", unfinished=True), MODEL, request())
    assert (outcome.interrupted, outcome.videos, outcome.error) == (True, [], None)


def test_skip_while_the_unfinished_video_is_decoded_stays_an_interruption(tmp_path: Path) -> None:
    class Hasty(Person):
        def show_progress(self, progress: Progress) -> None:
            super().show_progress(progress)
            if progress.text == "decoding 2/4, video 1 of 3":
                self._stop = "skip"

    outcome = run(Hasty(tmp_path, "sampling 2/3", unfinished=True), MODEL, request(batch_count=3))
    assert (outcome.interrupted, outcome.skipped, outcome.videos, outcome.error) == (True, 0, [], None)


class Crowded(Person):
    """Needs the memory back when the run is over. at: what happens at this progress; "disk" takes its folder away."""

    def __init__(self, outputs: Path, at: str, asks: Stop) -> None:
        super().__init__(outputs, at, asks, keep=KEEP_NOTHING, unfinished=True)
        self.outputs = outputs
        self.held: list[weakref.ref[Any]] = []
        self.left: list[object] = []

    def show_progress(self, progress: Progress) -> None:
        super().show_progress(progress)
        kept = module.STORE._kept
        if kept and not self.held:
            model = kept.residency.model
            self.held += [weakref.ref(part) for part in (model, model.unet, model.autoencoder)]
        if progress.text == "saving" and self.asks == "skip":
            shutil.rmtree(self.outputs)
            self.outputs.touch()

    def show_preview(self, image: Image.Image) -> None:
        held = [one for one in gc.get_objects() if type(one) is torch.Tensor and one.shape == (1, 4, 4, 8, 8)]
        self.held += map(weakref.ref, held)

    @contextmanager
    def room(self, release: Callable[[], None]) -> Iterator[None]:
        try:
            yield
        finally:
            self.left = [what() for what in self.held if what() is not None]


@pytest.mark.parametrize(
    ("at", "asks", "ends"),
    [
        ("-", "interrupt", "well"),
        ("sampling 3/3", "interrupt", "interrupted"),
        ("decoding 2/4", "interrupt", "interrupted"),
        ("-", "skip", "OutputError"),
        ("sampling 2/3", "skip", "well"),
    ],
)
def test_nothing_of_ours_is_held_when_the_hosts_models_come_back(
    at: str, asks: Stop, ends: str, tmp_path: Path
) -> None:
    host = Crowded(tmp_path / "out", at, asks)
    gc.disable()
    try:
        outcome = run(host, MODEL, request())
    finally:
        gc.enable()
    assert ends == ("interrupted" if outcome.interrupted else type(outcome.error).__name__ if outcome.error else "well")
    assert len(host.held) > 3
    assert host.left == []


def test_an_error_with_an_interruption_behind_it_holds_nothing(tmp_path: Path) -> None:
    class Full(Crowded):
        def show_progress(self, progress: Progress) -> None:
            super().show_progress(progress)
            if progress.text == "decoding 4/4":
                shutil.rmtree(self.outputs)
                self.outputs.touch()

    host = Full(tmp_path / "out", "sampling 3/3", "interrupt")
    outcome = run(host, MODEL, request())
    assert isinstance(outcome.error, OutputError)
    assert host.left == []


@pytest.mark.parametrize("asks", ["interrupt", "skip"])
def test_a_clip_that_is_complete_is_kept(asks: Stop, tmp_path: Path) -> None:
    outcome = run(Person(tmp_path, "decoding 4/4, video 1", asks), MODEL, request(batch_count=2))
    assert names(tmp_path) == (["00000-5.mp4"] if asks == "interrupt" else ["00000-5.mp4", "00001-6.mp4"])
    assert (outcome.interrupted, outcome.skipped) == (asks == "interrupt", 0)


@pytest.mark.parametrize("at", ["sampling 2/3", "decoding 2/4"])
def test_skip_goes_on_with_the_next(at: str, tmp_path: Path) -> None:
    outcome = run(Person(tmp_path, f"{at}, video 1", "skip"), MODEL, request(batch_count=2))
    assert (outcome.skipped, outcome.interrupted) == (1, False)
    assert names(tmp_path) == ["00000-6.mp4"]


@pytest.mark.parametrize(("shows", "size"), [("Contact sheet", (256, 256)), (MIDDLE_FRAME, (256, 256))])
def test_the_preview_shows_the_clip(shows: str, size: tuple[int, int], tmp_path: Path) -> None:
    person = Person(tmp_path, preview=shows)
    run(person, MODEL, request())
    assert [image.size for image in person.previews] == [size]
    assert len(set(person.previews[0].getdata())) > 10


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A TAESD decoder with random weights, where the WebUI has it."""
    monkeypatch.setattr(Person, "models_folder", lambda _: tmp_path / "models")
    path = tmp_path / "models" / "VAE-taesd" / "taesd_decoder.pth"
    path.parent.mkdir(parents=True)
    torch.manual_seed(0)
    # Larger than by default, so that something is seen.
    state = {name: 2 * x for name, x in TinyDecoder().state_dict().items()}
    torch.save(own_layout(state), path)
    return path


def test_the_preview_can_show_details(tiny: Path, tmp_path: Path) -> None:
    sizes = []
    for number, there in enumerate((True, False)):
        if not there:
            tiny.unlink()
        person = Person(tmp_path / str(number), preview=MIDDLE_FRAME, preview_decoder=TAESD_PREVIEW)
        assert not run(person, MODEL, request(width=320, height=320, frames=2, steps=2)).error
        sizes += [image.size for image in person.previews]
        assert len(set(person.previews[0].getdata())) > 100
    # As large as the video; and without the decoder, its latents enlarged.
    assert sizes == [(320, 320), (280, 280)]


def test_a_video_can_be_decoded_by_taesd(tiny: Path, tmp_path: Path) -> None:
    full, quick, unfinished = (
        run(Person(tmp_path / str(number), at, unfinished=True), MODEL, request(decoder=decoder))
        for number, (decoder, at) in enumerate((("full", "-"), ("TAESD", "-"), ("TAESD", "sampling 2/3")))
    )
    assert "Decoder: TAESD" in quick.videos[0].infotext and "Decoder" not in full.videos[0].infotext
    frames = [read_frame(outcome.videos[0].files[0], 0) for outcome in (full, quick, unfinished)]
    spread = [float(torch.tensor(list(frame.convert("L").getdata())).float().std()) for frame in frames]
    # Random weights show something, but hardly the ball.
    assert spread[0] > 2 * max(spread[1:])
    assert all(one > 0.5 for one in spread)
    tiny.unlink()
    outcome = run(Person(tmp_path / "none"), MODEL, request(decoder="TAESD"))
    assert isinstance(outcome.error, RequestError) and "taesd_decoder.pth" in str(outcome.error)
    assert not names(tmp_path / "none")


def test_infotext_goes_where_the_settings_say(tmp_path: Path) -> None:
    outcome = run(Person(tmp_path / "a", text=True), MODEL, request(prompt="<b>é"))
    assert (tmp_path / "a").rglob("*.txt").__next__().read_text(encoding="utf-8") == outcome.videos[0].infotext + "\n"
    path = run(Person(tmp_path / "b", infotext=False), MODEL, request()).videos[0].files[0]
    with pytest.raises(UnreadableFile):
        read_tags(path)


def test_a_missing_model_is_an_error_in_the_outcome(tmp_path: Path) -> None:
    outcome = run(Person(tmp_path), ModelFolder("gone", tmp_path / "gone"), request())
    assert isinstance(outcome.error, ModelError)
    assert names(tmp_path) == []


def test_what_can_be_known_to_fail_fails_before_sampling(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for host, wish, kind in (
        (Person(tmp_path / "file"), request(), OutputError),
        (Person(tmp_path / "half \ud83c"), request(), OutputError),
        (Person(tmp_path), request(soundtrack="/missing.wav"), RequestError),
    ):
        assert isinstance(run(host, MODEL, wish).error, kind)
        assert host.seen == []


def test_a_soundtrack_that_vanishes_loses_no_video(tmp_path: Path) -> None:
    track = tmp_path / "track.wav"
    with wave.open(str(track), "wb") as file:
        file.setparams((1, 2, 8000, 0, "NONE", "NONE"))
        file.writeframes(bytes(16000))

    class Tidy(Person):
        def show_progress(self, progress: Progress) -> None:
            super().show_progress(progress)
            if progress.text == "saving":
                track.unlink()

    outcome = run(Tidy(tmp_path / "out"), MODEL, request(soundtrack=str(track), formats="MP4,GIF"))
    assert names(tmp_path / "out") == ["00000-5.gif", "00000-5.mp4"]
    assert (["'track.wav'" in problem for problem in outcome.problems], outcome.error) == ([True], None)


def test_one_format_that_fails_loses_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fails_on_large_frames = FORMATS["GIF"]._replace(filters="pad=32:32")
    monkeypatch.setitem(FORMATS, "GIF", fails_on_large_frames)
    outcome = run(Person(tmp_path), MODEL, request(formats="GIF,MP4"))
    assert names(tmp_path) == ["00000-5.mp4"]
    assert len(outcome.problems) == 1
    assert not outcome.error


def test_a_format_that_ffmpeg_lacks_is_told_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(FORMATS, "GIF", FORMATS["GIF"]._replace(video=("-c:v", "nonsense")))
    outcome = run(Person(tmp_path / "a"), MODEL, request(formats="GIF,MP4", batch_count=2))
    assert names(tmp_path / "a") == ["00000-5.mp4", "00001-6.mp4"]
    assert ["GIF cannot be written by" in problem for problem in outcome.problems] == [True]
    person = Person(tmp_path / "b")
    assert isinstance(run(person, MODEL, request(formats="GIF")).error, OutputError)
    assert person.seen == []


def test_a_text_file_that_fails_loses_no_video(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, infotext: str) -> None:
        raise OutputError("no space")

    monkeypatch.setattr(save, "write_text", full)
    outcome = run(Person(tmp_path, text=True), MODEL, request(batch_count=2))
    assert names(tmp_path) == ["00000-5.mp4", "00001-6.mp4"]
    assert (len(outcome.videos), outcome.problems, outcome.error) == (2, ["no space", "no space"], None)


def test_an_unexpected_error_keeps_the_videos_before_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = stages.generate_latents

    def failing(model: Any, wish: Any, *others: Any, **named: Any) -> Any:
        if wish.seed == 6:
            raise ZeroDivisionError("boom")
        return real(model, wish, *others, **named)

    monkeypatch.setattr(stages, "generate_latents", failing)
    outcome = run(Person(tmp_path), MODEL, request(batch_count=3))
    assert isinstance(outcome.error, ZeroDivisionError)
    assert [video.request.seed for video in outcome.videos] == [5]


CPU = torch.device("cpu")
WHERE = Places(Place(CPU, torch.float32), Place(CPU, torch.float32))


def test_the_model_stays_as_far_as_the_setting_lets_it(tmp_path: Path) -> None:
    store, where = ModelStore(), WHERE
    first = store.take(MODEL, where)
    for keep, kept in ((KEEP_ALL, True), (KEEP_UNET, True), (KEEP_NOTHING, False)):
        store.finish_run(keep, BALANCED)
        assert (store.take(MODEL, where) is first) is kept


def test_a_model_that_changed_on_disk_is_loaded_anew(tmp_path: Path) -> None:
    folder = shutil.copytree(MODEL_FOLDER, tmp_path / "model")
    store, where = ModelStore(), WHERE
    first = store.take(ModelFolder("changed", folder), where)
    os.utime(folder / "configuration.json", (1, 1))
    assert store.take(ModelFolder("changed", folder), where) is not first


def test_a_borrowed_autoencoder_that_changed_is_loaded_anew(tmp_path: Path) -> None:
    folder, lender = (shutil.copytree(MODEL_FOLDER, tmp_path / name) for name in ("model", "lender"))
    (folder / "VQGAN_autoencoder.pth").unlink()
    store, where = ModelStore(), WHERE
    first = store.take(ModelFolder("borrowing", folder), where)
    assert store.take(ModelFolder("borrowing", folder), where) is first
    os.utime(lender / "VQGAN_autoencoder.pth", (1, 1))
    assert store.take(ModelFolder("borrowing", folder), where) is not first


def test_the_settings_name_the_precision_and_bring_the_video_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device_module, "multiplies_in_bfloat16", lambda: True)
    monkeypatch.delenv(VARIABLE)
    (first,) = run(Person(tmp_path), MODEL, request()).videos
    settings = read_infotext(read_tags(first.files[0]))
    assert settings["precision"] == "bfloat16"
    # Where single precision is usual, too.
    monkeypatch.setenv(VARIABLE, "float32")
    settings.pop("model")
    (again,) = run(Person(tmp_path), MODEL, GenerationRequest(**settings)).videos
    assert again.files[0].read_bytes() == first.files[0].read_bytes()
    (single,) = run(Person(tmp_path), MODEL, request()).videos
    assert read_infotext(read_tags(single.files[0]))["precision"] == "float32"
    assert single.files[0].read_bytes() != first.files[0].read_bytes()


def test_a_precision_that_the_device_does_not_have_is_said(tmp_path: Path) -> None:
    outcome = run(Person(tmp_path), MODEL, request(precision="float16", batch_count=2))
    assert outcome.notes == ["The device (cpu) does not support float16; the video is made in float32."]
    assert [video.request.precision for video in outcome.videos] == ["float32"] * 2


def test_an_outcome_starts_empty() -> None:
    outcome = Outcome()
    assert (outcome.videos, outcome.skipped, outcome.interrupted, outcome.error) == ([], 0, False, None)
    assert (outcome.problems, outcome.notes) == ([], [])
    assert outcome.videos is not Outcome().videos and outcome.notes is not Outcome().notes


def test_what_is_past_a_known_models_training_is_said_with_the_video(tmp_path: Path) -> None:
    folder = shutil.copytree(MODEL_FOLDER, tmp_path / "animov-0.1")
    outcome = run(Person(tmp_path / "out"), ModelFolder("animov", folder), request(frames=46, steps=1))
    assert outcome.error is None
    assert any("frames tend to fall apart" in words for words in outcome.notes)
    assert run(Person(tmp_path / "out"), ModelFolder("animov", folder), request(frames=2, steps=1)).notes == []


def test_frames_that_a_gif_leaves_out_are_noted_and_not_offered(tmp_path: Path) -> None:
    outcome = run(Person(tmp_path), MODEL, request(formats="GIF", fps=100, batch_count=2))
    assert outcome.notes.count("GIF files show 50 of 100 frames per second.") == 1
    assert not outcome.problems and outcome.videos[0].frames == 2
    read_frame(outcome.videos[0].files[0], 1)
