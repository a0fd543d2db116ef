"""What the tab's buttons do with what browsers send, without a browser."""

import asyncio
import dataclasses
import os
import re
import sys
import time
from contextlib import closing
from pathlib import Path
from threading import Thread
from time import sleep
from typing import Any

import gradio as gr
import pytest

from sd_t2v.t2v_helpers.generation.later_stages import list_later_passes
from sd_t2v.t2v_helpers.generation.pace import PACE
from sd_t2v.t2v_helpers.hosts.standalone.host import StandaloneHost
from sd_t2v.t2v_helpers.infotext import write_infotext
from sd_t2v.t2v_helpers.models import model_list
from sd_t2v.t2v_helpers.models.folders import MINIATURE_NAME, find_models, more_folder
from sd_t2v.t2v_helpers.models.model_list import ModelList
from sd_t2v.t2v_helpers.page import tab
from sd_t2v.t2v_helpers.page.actions import Actions
from sd_t2v.t2v_helpers.page.files import FIELDS, Files
from sd_t2v.t2v_helpers.page.model_actions import FORECAST_FIELDS, ModelActions
from sd_t2v.t2v_helpers.page.restore import Restore
from sd_t2v.t2v_helpers.page.results import Results
from sd_t2v.t2v_helpers.page.source_fold import choose_restored
from sd_t2v.t2v_helpers.request import BY_MODEL, SAME, GenerationRequest
from sd_t2v.t2v_helpers.settings import OUTPUT_FOLDER

ORDER = tab.ORDER
DEFAULTS = {field.name: field.default for field in dataclasses.fields(GenerationRequest)}
NO_FILES = Files(*[None] * len(Files._fields))
"""What a page sends if nobody has chosen a file."""
SMALL = DEFAULTS | {"prompt": "a red ball", "width": 16, "height": 16, "frames": 1, "steps": 1}


def host(folder: Path) -> StandaloneHost:
    return StandaloneHost(folder / "models", folder / "out", folder / "settings.json", "cpu")


@pytest.fixture
def page_host(tmp_path: Path) -> StandaloneHost:
    return host(tmp_path)


@pytest.fixture
def actions(page_host: StandaloneHost) -> Actions:
    return Actions(page_host, ORDER, ModelList(page_host))


@pytest.fixture
def model_actions(page_host: StandaloneHost) -> ModelActions:
    return ModelActions(page_host, ORDER, ModelList(page_host))


@pytest.fixture
def restore(page_host: StandaloneHost) -> Restore:
    return Restore(ORDER, ModelList(page_host), [None])


def in_order(**values: Any) -> list[Any]:
    return [(DEFAULTS | values)[name] for name in ORDER]


def test_every_field_of_the_request_is_on_the_tab() -> None:
    assert {*ORDER, *FIELDS} == set(DEFAULTS)


def test_gradio_lets_every_page_wait_in_the_hosts_queue(tmp_path: Path) -> None:
    blocks = tab.build_tab(host(tmp_path))
    (generate,) = (event for event in blocks.fns.values() if event.name == "in_turn")
    assert generate.concurrency_limit is None


def test_restored_settings_outlive_the_choice_of_their_model(
    restore: Restore, model_actions: ModelActions, tmp_path: Path
) -> None:
    other = more_folder(tmp_path / "models") / "other"
    other.mkdir(parents=True)
    (other / "text2video_pytorch_model.pth").touch()
    text = "x\nSteps: 25, Sampler: DPM++ 2M, CFG scale: 4, Size: 64x64, Frames: 8, FPS: 8, Model: other"
    restored = restore.restore_text(text, MINIATURE_NAME)
    fields = dict(zip(ORDER, restored.fields, strict=True))
    assert (restored.model, restored.previous_model, fields["width"], fields["cfg_scale"]) == ("other", "other", 64, 4)
    values = in_order(width=64, height=64, frames=8, cfg_scale=4.0)
    _, *changes = model_actions.choose_model(restored.previous_model, restored.model, *values)
    assert all(isinstance(change, dict) and "value" not in change for change in changes)


def test_restoring_undoes_what_the_settings_leave_out(restore: Restore) -> None:
    text = write_infotext(GenerationRequest(prompt="", seed=5), MINIATURE_NAME)
    fields = restore.restore_text(text, MINIATURE_NAME).fields
    changed = in_order(prompt="old", negative_prompt="old", eta=0.7)
    shown = {name: old if isinstance(new, dict) else new for name, old, new in zip(ORDER, changed, fields, strict=True)}
    assert (shown["prompt"], shown["negative_prompt"], shown["eta"]) == ("", "", 0)


def test_an_open_seed_stays_open(restore: Restore) -> None:
    restored = restore.restore_text("x\nSteps: 2, Sampler: UniPC, CFG scale: 4, Seed: -1", MINIATURE_NAME)
    assert dict(zip(ORDER, restored.fields, strict=True))["seed"] == -1


def test_the_second_pass_has_its_own_forecast(model_actions: ModelActions) -> None:
    values = MINIATURE_NAME, 64, 64, 8, 8, 1
    once = forecast(model_actions, *values)
    second = {"extend": 1, "hires": SAME, "hires_scale": 1.5}
    twice = forecast(model_actions, *values, **second)
    assert "Second pass" not in once and twice.startswith(once.split("</div>")[0])
    assert "Second pass, 14 frames of 96 x 96: needs about" in twice
    again = forecast(model_actions, *values, **second, interpolate=4, interpolate_by=BY_MODEL)
    assert "In between, 27 frames of 96 x 96: needs about" in again and "In between, 53 frames" in again
    assert "Watermark removal, 8 frames of 64 x 64" in forecast(model_actions, *values, watermark=0.5)
    assert "There is no model" in forecast(model_actions, *values, hires="gone")


def test_time_is_told_as_soon_as_a_run_has_shown_it(
    actions: Actions, model_actions: ModelActions, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = MINIATURE_NAME, 64, 64, 8, 8, 1
    monkeypatch.setattr(PACE, "_seen", {})
    assert "takes about" not in forecast(model_actions, *values)
    small = SMALL | {"width": 64, "height": 64, "frames": 3, "steps": 3}
    done = actions.generate("task(1)", MINIATURE_NAME, *NO_FILES, *[small[name] for name in ORDER])
    assert "1 video saved" in done.status
    assert re.search(
        r"8 frames: needs about .* free [^.]*, takes about \d+ s", forecast(model_actions, *values, steps=50)
    )
    assert re.search(r"One video takes about \d+ (s|min) in all", forecast(model_actions, *values, steps=50, extend=3))


def test_results_have_the_tabs_components_in_their_order(page_host: StandaloneHost) -> None:
    with gr.Blocks() as blocks:
        built = tab.Tab(page_host)
    shown = [getattr(built, name) for name in Results._fields]
    runs = [event for event in blocks.fns.values() if event.name in ("in_turn", "collect")]
    assert [event.outputs for event in runs] == [shown, shown]


def test_whoever_waits_withdraws_only_their_own_run(actions: Actions) -> None:
    actions.interrupt("task(waiting)")
    assert "interrupted" in actions.generate("task(waiting)", MINIATURE_NAME, *NO_FILES, *in_order()).status
    done = actions.generate("task(other)", MINIATURE_NAME, *NO_FILES, *[SMALL[name] for name in ORDER])
    assert "1 video saved" in done.status
    assert actions.collect("task(other)") == done
    assert "interrupted" in actions.collect("task(waiting)").status


def test_an_interrupt_withdraws_every_run_of_a_page_that_waits(actions: Actions) -> None:
    actions.interrupt("task(first) task(second)")
    for task in ("task(first)", "task(second)"):
        assert "interrupted" in actions.generate(task, MINIATURE_NAME, *NO_FILES, *in_order()).status


def test_an_interrupt_ends_the_run_and_leaves_the_page_its_next_one(
    actions: Actions, page_host: StandaloneHost
) -> None:
    values = SMALL | {"frames": 100, "steps": 50}
    running = Thread(
        target=actions.generate, args=["task(runs)", MINIATURE_NAME, *NO_FILES, *(values[n] for n in ORDER)]
    )
    running.start()
    while page_host.tasks.running is None:
        sleep(0.01)
    actions.interrupt("task(waits) task(runs)")
    running.join()
    assert "interrupted" in actions.collect("task(runs)").status
    done = actions.generate("task(waits)", MINIATURE_NAME, *NO_FILES, *[SMALL[name] for name in ORDER])
    assert "1 video saved" in done.status


def test_repeated_interrupts_of_one_page_leave_room_for_others(actions: Actions) -> None:
    for task in ("task(a)", *["task(b)"] * 99):
        actions.interrupt(task)
    assert "interrupted" in actions.generate("task(a)", MINIATURE_NAME, *NO_FILES, *in_order()).status


def test_a_frame_that_cannot_be_read_is_said(actions: Actions) -> None:
    done = actions.generate("t", MINIATURE_NAME, *NO_FILES, *[(SMALL | {"frames": 3})[name] for name in ORDER])
    slider = done.frame_number
    assert (done.frame.size, done.frame_status, slider["maximum"], slider["visible"]) == ((16, 16), "", 3, True)
    Path(done.made[0]["files"][0]).unlink()
    image, wrong = actions.frame(done.made, 2)
    assert image is None
    assert "Frame 2" in wrong
    assert "cannot be read" in wrong


def test_a_video_of_one_frame_offers_no_other(actions: Actions) -> None:
    done = actions.generate("t", MINIATURE_NAME, *NO_FILES, *[SMALL[name] for name in ORDER])
    assert done.frame_number["visible"] is False


def forecast(actions: ModelActions, model: Any, *sizes: Any, **others: Any) -> str:
    """As a page gets it that asks nothing else meanwhile. sizes: width, height, frames, fps and draft."""
    fields = dict(zip(("width", "height", "frames", "fps", "draft"), sizes, strict=True)) | others
    values = [model, *(fields.get(name, DEFAULTS[name]) for name in FORECAST_FIELDS)]
    # Not asyncio.run, which drops the loop that gradio has opened.
    with closing(asyncio.new_event_loop()) as loop:
        return str(loop.run_until_complete(actions.forecast("a page", *values)))


@pytest.mark.parametrize("wrong", [None, [], {}, float("nan"), 10**400, "x"])
def test_whatever_is_sent_gets_an_answer(
    wrong: Any, actions: Actions, model_actions: ModelActions, restore: Restore
) -> None:
    assert "__type__" not in forecast(model_actions, MINIATURE_NAME, 64, wrong, wrong, 8, 1)
    assert "__type__" not in forecast(model_actions, wrong, wrong, 64, 24, wrong, wrong)
    assert actions.collect(wrong) == Results.unchanged()
    assert len(restore.restore_text(wrong, wrong).outputs()) == 5 + len(ORDER)
    image, said = actions.frame([{"files": ["missing.mp4"]}], wrong)
    assert image is None
    assert "text2video-error" in said
    results = actions.generate(wrong, wrong, wrong, *[wrong] * len(ORDER))
    assert "text2video-error" in results.status
    actions.interrupt(wrong)
    actions.skip(wrong)


def test_half_an_emoji_loses_no_video(actions: Actions) -> None:
    values = SMALL | {"prompt": "a ball \ud83c"}
    results = actions.generate("t", MINIATURE_NAME, *NO_FILES, *[values[name] for name in ORDER])
    assert "1 video saved" in results.status
    assert "a ball \ufffd" in results.infotext


def test_a_folder_whose_name_is_no_unicode_is_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = more_folder(tmp_path / "models") / "bad\udcff"
    try:
        folder.mkdir(parents=True)
    except (OSError, UnicodeEncodeError):
        pytest.skip("this system has no such names")
    (folder / "model.pth").touch()
    assert [model.name for model in find_models(host(tmp_path))] == [MINIATURE_NAME]
    assert "rename it" in caplog.text


@pytest.mark.skipif(sys.platform != "linux", reason="stands in for Linux' file manager")
def test_open_folder_shows_where_the_next_video_goes(
    actions: Actions, page_host: StandaloneHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = file_manager(tmp_path, monkeypatch, 'echo "$1" > "$0".log')
    for chosen, folder in (("", "out"), ("below", "out/below"), (str(tmp_path / "other"), "other")):
        page_host.settings.change(OUTPUT_FOLDER, chosen)
        assert actions.open_folder([]) == ""
        assert opened.read_text().strip() == str(tmp_path / folder)
    page_host.settings.change(OUTPUT_FOLDER, "half \ud83c")
    assert "cannot be used" in actions.open_folder([])


def file_manager(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> Path:
    """A file manager that is a shell script; returns the log that lies beside it."""
    program = folder / "bin" / "xdg-open"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=os.pathsep)
    return program.with_name("xdg-open.log")


@pytest.mark.skipif(sys.platform != "linux", reason="stands in for Linux' file manager")
def test_a_file_manager_that_fails_is_noticed(
    actions: Actions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file_manager(tmp_path, monkeypatch, "exit 3")
    shown = actions.open_folder([])
    assert "No file manager could be started" in shown
    assert str(tmp_path / "out") in shown


@pytest.mark.skipif(sys.platform != "linux", reason="stands in for Linux' file manager")
def test_a_file_manager_that_stays_is_waited_for_only_briefly(
    actions: Actions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file_manager(tmp_path, monkeypatch, "exec sleep 20")
    start = time.monotonic()
    assert actions.open_folder([]) == ""
    assert time.monotonic() - start < 15


def test_settings_of_the_page_are_kept(tmp_path: Path) -> None:
    from sd_t2v.t2v_helpers.settings import KEEP, KEEP_ALL, SAVE_TEXT, SHOWN_VIDEOS

    stored = host(tmp_path).settings
    assert (stored[KEEP], stored[SAVE_TEXT]) == (KEEP_ALL, False)
    assert [stored.change(SAVE_TEXT, True), stored.change(SHOWN_VIDEOS, 2.0), stored.change(KEEP, "nonsense")] == [
        ""
    ] * 3
    assert stored[KEEP] == KEEP_ALL
    again = host(tmp_path).settings
    assert again[KEEP] == KEEP_ALL
    assert (again[SAVE_TEXT], again[SHOWN_VIDEOS]) == (True, 2)
    (tmp_path / "settings.json").write_text("[broken")
    assert host(tmp_path).settings[SAVE_TEXT] is False
    (tmp_path / "settings.json").unlink()
    (tmp_path / "settings.json").mkdir()
    assert "cannot be written" in again.change(SAVE_TEXT, False)


def test_known_models_bring_their_good_values_and_a_warning(model_actions: ModelActions, tmp_path: Path) -> None:
    folder = more_folder(tmp_path / "models") / "zeroscope_v2_576w"
    folder.mkdir(parents=True)
    (folder / "text2video_pytorch_model.pth").touch()
    chosen = model_actions.choose_model(MINIATURE_NAME, "zeroscope_v2_576w", *in_order(width=64, height=64, frames=8))[
        1:
    ]
    fields = dict(zip(ORDER, chosen, strict=True))
    assert (fields["width"], fields["height"], fields["frames"]) == (576, 320, 24)
    wished = dict(zip(ORDER, model_actions.advise("zeroscope_v2_576w"), strict=True))
    assert (wished["width"], wished["height"], wished["frames"]) == (576, 320, 24)
    assert wished["prompt"] == gr.update()
    assert "Beyond what" not in forecast(model_actions, "zeroscope_v2_576w", 576, 320, 24, 8, 1)
    said = forecast(model_actions, "zeroscope_v2_576w", 1024, 640, 100, 8, 1)
    assert "Beyond what this model was trained for: more than about 45 frames tend to fall apart" in said
    assert "it was trained at 576 x 320" in said


def test_a_slider_that_moves_lists_no_folder_unless_one_has_changed(
    model_actions: ModelActions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = more_folder(tmp_path / "models")
    make_model(folder / "one")
    for changed in (tmp_path, tmp_path / "models", folder, folder / "one"):
        os.utime(changed, (1e9, 1e9))
    listed, find = [], model_list.find_models
    monkeypatch.setattr(model_list, "find_models", lambda host: listed.append(host) or find(host))
    for frames in range(8, 18):
        forecast(model_actions, MINIATURE_NAME, 64, 64, frames, 8, 1)
    assert len(listed) == 1
    make_model(folder / "two")
    assert "There is no model" not in forecast(model_actions, "two", 64, 64, 8, 8, 1)
    assert len(listed) == 2


@pytest.mark.parametrize("below", ["", "unet", "inner", "inner/unet"])
def test_a_model_is_there_as_soon_as_its_weights_are(below: str, model_actions: ModelActions, tmp_path: Path) -> None:
    folder = more_folder(tmp_path / "models") / "late" / below
    folder.mkdir(parents=True)
    for changed in (folder, *folder.parents[: len(folder.relative_to(tmp_path).parts)]):
        os.utime(changed, (1e9, 1e9))
    name = "late/inner" if "inner" in below else "late"
    assert "There is no model" in forecast(model_actions, name, 64, 64, 8, 8, 1)
    (folder / "model.pth").touch()
    assert "There is no model" not in forecast(model_actions, name, 64, 64, 8, 8, 1)


def test_a_refresh_lists_the_folders_even_where_their_times_stay(model_actions: ModelActions, tmp_path: Path) -> None:
    folder = more_folder(tmp_path / "models")
    make_model(folder / "one")
    for round_ in ("one", "two"):
        make_model(folder / round_)
        for changed in (tmp_path, tmp_path / "models", folder, folder / round_):
            os.utime(changed, (1e9, 1e9))
        assert round_ in model_actions.refresh(MINIATURE_NAME).model["choices"]


def make_model(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "text2video_pytorch_model.pth").touch()


def test_only_what_a_person_cannot_mend_has_a_report(actions: Actions) -> None:
    def status(model: Any = MINIATURE_NAME, **changes: Any) -> str:
        values = SMALL | changes
        return str(actions.generate("task(1)", model, *NO_FILES, *[values[name] for name in ORDER]).status)

    typed = status(width=17)
    assert "text2video-error" in typed and "Report to copy" not in typed
    gone = status(model="gone")
    assert "text2video-error" in gone and "Report to copy" in gone


def test_text_files_restore_and_foreign_files_are_called_so(restore: Restore, tmp_path: Path) -> None:
    def drop(text: str) -> Any:
        (tmp_path / "00000-5.txt").write_text(text, encoding="utf-8-sig")
        return restore.restore_file(str(tmp_path / "00000-5.txt"), MINIATURE_NAME)

    mine = write_infotext(GenerationRequest(prompt="a red ball", seed=123), MINIATURE_NAME)
    restored = dict(zip(ORDER, drop(mine).fields, strict=True))
    assert (restored["prompt"], restored["seed"]) == ("a red ball", 123)
    webui = (
        "a castle <lora:foo:0.8>\nNegative prompt: blurry\nSteps: 20, Sampler: DPM++ 2M Karras, CFG scale: 7, Seed: 1"
    )
    restored = dict(zip(ORDER, drop(webui).fields, strict=True))
    assert (restored["negative_prompt"], restored["steps"], restored["cfg_scale"]) == ("blurry", 20, 7)
    windows = "a red\r\nball\r\nSteps: 3, Sampler: UniPC, CFG scale: 7, Seed: 1"
    assert dict(zip(ORDER, drop(windows).fields, strict=True))["prompt"] == "a red\nball"
    assert restore.restore_file(None, MINIATURE_NAME).file == gr.update()
    said = drop('{"prompt": "{}", "workflow": 1}').note
    assert "00000-5.txt contains no settings of this program." in said and "Paste" not in said


def test_only_a_video_takes_the_place_of_the_source(tmp_path: Path) -> None:
    (tmp_path / "00000-5.txt").write_text("a red ball")
    refused = choose_restored(str(tmp_path / "00000-5.txt"))
    assert "text2video-error" in refused.status and refused[:2] == (gr.update(), gr.update())
    assert "no video here" in choose_restored("").status


def test_frames_in_between_take_the_first_models_steps() -> None:
    asked = GenerationRequest(steps=20, hires=SAME, hires_steps=50, interpolate=2, interpolate_by=BY_MODEL)
    assert [(one.name, one.request.steps) for one in list_later_passes(asked, asked.frames)] == [
        ("Second pass", 50),
        ("In between", 20),
    ]
