"""The standalone page in a browser: a person's way through it."""

import base64
import json
import re
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, Route

from sd_t2v.miniature.recipe import MODEL_FOLDER
from sd_t2v.t2v_helpers.models.known import find_known
from sd_t2v.t2v_helpers.video.metadata import read_tags
from sd_t2v.tests.helpers.chromium import drawn, opened_page
from sd_t2v.tests.helpers.hub import Hub
from sd_t2v.tests.helpers.support import seen_in

from .pages import Server, number, progress_seen, prompt, run, set_number, status

NASTY = '<img src=x onerror="document.title=\'owned\'"> "quotes" \\ \n second line 🎥'


def test_with_no_weights_it_offers_the_miniature_and_says_so(page: Page, server: Server) -> None:
    note = page.inner_text("#text2video_note")
    assert "There are no ModelScope weights yet" in note
    assert str(server.models / "ModelScope" / "t2v") in note
    assert (server.models / "ModelScope" / "t2v").is_dir()
    page.wait_for_function("document.querySelector('#text2video_width input[type=number]').value === '64'")
    assert (number(page, "frames"), number(page, "cfg_scale")) == (8, 2)
    page.wait_for_function("document.querySelector('#text2video_length').innerText.includes('1.00 seconds')")


def test_what_a_run_needs_is_said_before_it_and_follows_the_fields(page: Page) -> None:
    page.wait_for_function("document.querySelector('#text2video_width input[type=number]').value === '64'")
    said = "document.querySelector('#text2video_length').innerText"
    page.wait_for_function(f"/^1.00 seconds\\s+8 frames: needs about \\d+ MB of .* free/.test({said})")
    before = page.evaluate(said)
    set_number(page, "frames", 200)
    page.wait_for_function(f"/^25.00 seconds\\s+200 frames: needs about .* free/.test({said})")
    longer = page.evaluate(said)
    assert longer.split("about")[1] != before.split("about")[1]
    set_number(page, "width", 512)
    page.wait_for_function(f"{said} !== {json.dumps(longer)}")
    page.wait_for_function(f"/^25.00 seconds\\s+200 frames: needs about .* free/.test({said})")


def test_a_prompt_becomes_a_playing_video(page: Page, server: Server) -> None:
    before = server.videos()
    prompt(page, "a green triangle moving up")
    page.wait_for_function("document.querySelector('#text2video_width input[type=number]').value === '64'")
    set_number(page, "seed", 11)
    page.keyboard.press("Control+Enter")
    texts, previews = progress_seen(page)
    shares = [int(match[1]) for text in texts if (match := re.search(r"(\d+)%", text))]
    assert len({text for text in texts if "sampling" in text}) >= 3, texts
    assert shares == sorted(shares)
    assert previews >= 2
    page.wait_for_selector("#text2video_players video")
    page.wait_for_function("document.querySelector('#text2video_players video').currentTime > 0")
    player = page.evaluate(
        "(v => [v.duration, v.loop, v.videoWidth])(document.querySelector('#text2video_players video'))"
    )
    assert player == [1, True, 64]
    (made,) = server.videos() - before
    link = page.get_by_role("link", name="Click here")
    assert link.count() == 1
    answer = page.request.get(server.address + str(link.get_attribute("href")))
    assert answer.body() == made.read_bytes()
    assert "1 video saved" in status(page)
    assert "Seed: 11" in page.inner_text("#text2video_infotext")
    assert seen_in(made) == ("green", "triangle", "up")


def test_dropping_the_video_back_gives_the_same_file_again(page: Page, server: Server, tmp_path: Path) -> None:
    before = server.videos()
    prompt(page, "a red ball, (moving left:1.2)")
    prompt(page, NASTY, "negative_prompt")
    for name, value in (("seed", 77), ("steps", 5), ("frames", 4), ("width", 72), ("height", 48), ("cfg_scale", 3.5)):
        set_number(page, name, value)
    run(page)
    (first,) = server.videos() - before
    page.reload()
    drawn(page)
    drop(page, first, "#text2video_prompt textarea")
    page.wait_for_function("document.querySelector('#text2video_restored').innerText.includes('Settings restored')")
    page.wait_for_function("document.querySelector('#text2video_steps input[type=number]').value === '5'")
    assert page.input_value("#text2video_prompt textarea") == "a red ball, (moving left:1.2)"
    run(page)
    (second,) = server.videos() - before - {first}
    assert first.read_bytes() == second.read_bytes()
    assert page.title() != "owned"


def test_a_typed_path_restores_settings_and_others_say_why_not(page: Page, server: Server, tmp_path: Path) -> None:
    before = server.videos()
    prompt(page, "a blue square moving down")
    set_number(page, "seed", 123)
    set_number(page, "steps", 2)
    run(page)
    (made,) = server.videos() - before
    set_number(page, "seed", 5)
    page.click("#text2video_restore_fold >> text=Settings from a video")
    for typed, said in {
        str(tmp_path / "nowhere.mp4"): "There is no file",
        "http://127.0.0.1/x.mp4": "looks like an address",
        f'"{made}"': "Settings restored",
    }.items():
        page.fill("#text2video_restore_path textarea, #text2video_restore_path input", typed)
        page.keyboard.press("Enter")
        page.wait_for_function(
            "said => document.querySelector('#text2video_restored').innerText.includes(said)", arg=said
        )
    page.wait_for_function("document.querySelector('#text2video_seed input').value === '123'")


def drop(page: Page, file: Path, selector: str) -> None:
    content = base64.b64encode(file.read_bytes()).decode()
    transfer = page.evaluate_handle(
        """([name, content]) => {
            const transfer = new DataTransfer();
            transfer.items.add(new File([Uint8Array.from(atob(content), (c) => c.charCodeAt(0))], name));
            return transfer;
        }""",
        [file.name, content],
    )
    page.dispatch_event(selector, "drop", {"dataTransfer": transfer})


def stored(server: Server, page: Page, key: str, value: object) -> None:
    for _ in range(300):
        if server.settings.exists() and json.loads(server.settings.read_text()).get(key) == value:
            return
        page.wait_for_timeout(100)
    pytest.fail(f"{key} was not stored as {value!r}")


def choose(server: Server, page: Page, unfinished: bool, pattern: str) -> None:
    page.set_checked("#setting_text2video_save_unfinished input", unfinished)
    stored(server, page, "text2video_save_unfinished", unfinished)
    page.fill("#setting_text2video_name_pattern textarea", pattern)
    page.press("#setting_text2video_name_pattern textarea", "Tab")
    stored(server, page, "text2video_name_pattern", pattern)


def test_settings_stay(page: Page, server: Server) -> None:
    page.click("#settings_fold >> text=Settings")
    choose(server, page, True, "[seed] [number]")
    page.reload()
    drawn(page)
    page.click("#settings_fold >> text=Settings")
    pattern = "document.querySelector('#setting_text2video_name_pattern textarea').value === '[seed] [number]'"
    page.wait_for_function(pattern)
    page.wait_for_selector("#setting_text2video_save_unfinished input:checked")
    slow(page)
    set_number(page, "seed", 31)
    page.click("#text2video_generate")
    sampling(page)
    page.click("#text2video_interrupt")
    page.wait_for_selector("#text2video_players >> text=not finished")
    assert "31 00000.mp4" in page.inner_text("#text2video_players")
    choose(server, page, False, "[number]-[seed]")


def test_a_setting_that_is_changed_as_soon_as_the_page_opens_stays(browser: Browser, server: Server) -> None:
    for wanted in (True, False):
        with opened_page(browser, server.address) as page:
            page.click("#settings_fold >> text=Settings")
            page.set_checked("#setting_text2video_save_unfinished input", wanted)
            stored(server, page, "text2video_save_unfinished", wanted)
            # A late answer would bring back the former value, and store it.
            page.wait_for_timeout(1000)
            stored(server, page, "text2video_save_unfinished", wanted)


def test_pasting_text_restores_the_fields(page: Page) -> None:
    prompt(
        page,
        "a cat\nNegative prompt: dog\nsteps: 7, frames: 9, seed: 3, scale: 11, width: 128, height: 64, sampler: UniPC",
    )
    page.click("#text2video_paste")
    page.wait_for_function("document.querySelector('#text2video_prompt textarea').value === 'a cat'")
    page.wait_for_function("document.querySelector('#text2video_height input[type=number]').value === '64'")
    found = {name: number(page, name) for name in ("steps", "frames", "seed", "cfg_scale", "width")}
    assert found == {"steps": 7, "frames": 9, "seed": 3, "cfg_scale": 11, "width": 128}
    assert page.input_value("#text2video_sampler input") == "UniPC"
    prompt(page, "just words")
    page.click("#text2video_paste")
    page.wait_for_selector("#text2video_restored .error")
    assert page.input_value("#text2video_prompt textarea") == "just words"


def slow(page: Page, steps: int = 60) -> None:
    page.wait_for_function("document.querySelector('#text2video_width input[type=number]').value === '64'")
    set_number(page, "steps", steps)


def sampling(page: Page, video: str = "") -> None:
    page.wait_for_function(
        "video => /sampling \\d/.test(document.querySelector('.progressDiv')?.innerText) &&"
        " document.querySelector('.progressDiv').innerText.includes(video)",
        arg=video,
    )


def test_interrupt_skip_and_a_batch(page: Page, server: Server) -> None:
    before = server.videos()
    slow(page, 30)
    set_number(page, "batch_count", 3)
    page.click("#text2video_generate")
    sampling(page, "video 1 of 3")
    page.keyboard.press("Alt+Enter")
    page.wait_for_function("document.querySelector('.progressDiv')?.innerText.includes('video 2 of 3')")
    page.wait_for_function("document.querySelector('.progressDiv')?.innerText.includes('video 3 of 3')")
    sampling(page, "video 3 of 3")
    page.keyboard.press("Escape")
    wait_gone(page)
    page.wait_for_function("document.querySelector('#text2video_status').innerText.includes('interrupted')")
    assert "1 video saved, 1 skipped, interrupted" in status(page)
    assert len(server.videos() - before) == 1
    set_number(page, "steps", 2)
    set_number(page, "batch_count", 3)
    assert "3 videos saved" in run(page)
    assert page.locator("#text2video_players video").count() == 3


def wait_gone(page: Page) -> None:
    page.wait_for_selector(".progressDiv", state="detached")


def test_bad_values_are_named_and_the_next_run_works(page: Page) -> None:
    slow(page, 2)
    for name, value, message in (
        ("width", "65", "multiple of 8"),
        ("frames", "0", "Frames must be from 1"),
        ("seed", "-7", "Seed must be from -1"),
        ("steps", "0", "Steps must be from 1"),
    ):
        kept = number(page, name)
        page.fill(f"#text2video_{name} input[type=number]", value)
        text = run(page)
        if message not in text:
            # The browser or gradio has corrected the value.
            assert number(page, name) != float(value)
        page.fill(f"#text2video_{name} input[type=number]", str(kept))
    assert "1 video saved" in run(page)


def test_a_chosen_lora_becomes_a_tag_in_the_prompt(page: Page, server: Server) -> None:
    folder = server.models / "Lora"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "style one.safetensors").touch()
    prompt(page, "a red ball")
    page.click("#text2video_lora_fold >> text=LoRA")
    page.click("#text2video_refresh_loras")
    names = page.locator("#text2video_lora input")
    for _ in range(60):
        names.focus()  # opens the list; an open one is not drawn again
        page.wait_for_timeout(500)
        if page.locator("text=style one").count():
            break
        names.blur()
    page.click("text=style one")
    page.wait_for_function(
        "document.querySelector('#text2video_prompt textarea').value === 'a red ball <lora:style one:1>'"
    )
    assert "style one.safetensors: is empty" in run(page)


def test_a_model_that_vanished_is_an_error_in_the_page(page: Page, server: Server) -> None:
    folder = server.models / "text2video" / "mine <b>"
    folder.mkdir(parents=True)
    weights = folder / "text2video_pytorch_model.pth"
    weights.write_bytes(b"<html>not found</html>")
    page.click("#text2video_refresh")
    models = page.locator("#text2video_model input")
    for _ in range(60):
        models.focus()  # opens the list; an open one is not drawn again
        page.wait_for_timeout(500)
        if page.locator("text=mine <b>").count():
            break
        models.blur()
    page.click("text=mine <b>")
    text = run(page)
    assert "configuration" in text or "is missing" in text or "web page" in text, text
    page.wait_for_selector("#text2video_status [role=alert]")
    top = "document.querySelector('#text2video_{}').getBoundingClientRect().top"
    shown, below = (page.evaluate(top.format(name)) for name in ("status", "players"))
    assert 0 < shown <= below
    page.click("#text2video_status summary")
    assert "torch" in page.input_value("#text2video_status textarea")
    weights.unlink()
    folder.rmdir()
    text = run(page)
    assert "There is no model" in text
    assert page.locator("#text2video_status b").count() == 0


def test_two_pages_share_the_queue_and_not_their_results(page: Page, browser: Browser, server: Server) -> None:
    slow(page)
    with opened_page(browser, server.address) as other:
        slow(other, 2)
        page.click("#text2video_generate")
        sampling(page)
        other.click("#text2video_generate")
        other.wait_for_function("/In queue/.test(document.querySelector('.progressDiv')?.innerText)")
        page.click("#text2video_interrupt")
        wait_gone(page)
        other.wait_for_selector("#text2video_players video", timeout=180_000)
        page.wait_for_function("document.querySelector('#text2video_status').innerText.includes('interrupted')")
        slow(page)
        page.click("#text2video_generate")
        sampling(page)
        other.click("#text2video_generate")
        other.wait_for_function("/In queue/.test(document.querySelector('.progressDiv')?.innerText)")
        other.click("#text2video_interrupt")
        page.wait_for_timeout(1000)
        sampling(page)
        page.click("#text2video_interrupt")
        wait_gone(page)
        other.wait_for_selector("#text2video_status >> text=interrupted before it started")
        page.wait_for_function("document.querySelector('#text2video_status').innerText.includes('interrupted')")
        assert page.locator("#text2video_players video").count() == 0


def test_a_closed_page_still_gets_its_video_saved(browser: Browser, server: Server, page: Page) -> None:
    before = server.videos()
    with opened_page(browser, server.address) as other:
        slow(other, 20)
        other.click("#text2video_generate")
        sampling(other)
    for _ in range(300):
        if server.videos() - before:
            break
        page.wait_for_timeout(100)
    (made,) = server.videos() - before
    assert "Steps: 20" in read_tags(made)


def test_a_reloaded_page_gets_its_result(page: Page) -> None:
    slow(page, 25)
    set_number(page, "seed", 123)
    page.click("#text2video_generate")
    sampling(page)
    page.reload()
    drawn(page)
    page.wait_for_selector("#text2video_players video")
    assert "Seed: 123" in page.inner_text("#text2video_infotext")
    assert "1 video saved" in status(page)
    page.click("#text2video_reuse_seed")
    page.wait_for_function("document.querySelector('#text2video_seed input').value === '123'")


def test_a_server_that_is_out_of_reach_for_a_moment_is_asked_again(page: Page) -> None:
    slow(page)
    page.click("#text2video_generate")
    sampling(page)
    page.route("**/internal/progress", lambda route: route.abort())
    page.wait_for_timeout(2000)
    assert page.locator(".progressDiv").count() == 1
    assert page.is_visible("#text2video_interrupt")
    page.unroute("**/internal/progress")
    page.click("#text2video_interrupt")
    wait_gone(page)
    page.wait_for_function("document.querySelector('#text2video_status').innerText.includes('interrupted')")


def test_generate_can_be_pressed_again_only_when_the_run_is_over(page: Page, server: Server) -> None:
    before = server.videos()
    slow(page, 25)
    page.focus("#text2video_generate")
    page.keyboard.press("Space")
    sampling(page)
    assert page.is_disabled("#text2video_generate")
    page.keyboard.press("Space")
    page.evaluate("document.querySelector('#text2video_generate').click()")
    assert page.locator(".progressDiv").count() == 1
    wait_gone(page)
    page.wait_for_function("document.querySelector('#text2video_status').innerText.includes('1 video saved')")
    assert len(server.videos() - before) == 1
    slow(page, 2)
    assert "1 video saved" in run(page)


def test_generate_pressed_twice_at_once_makes_a_video_each_time(page: Page, server: Server) -> None:
    before = server.videos()
    slow(page, 25)
    page.evaluate(
        """() => {
            const generate = document.querySelector('#text2video_generate');
            generate.click();
            generate.click();
        }"""
    )
    page.wait_for_function("document.querySelectorAll('.progressDiv').length === 2")
    page.wait_for_function("document.querySelectorAll('.progressDiv').length === 1", timeout=180_000)
    assert page.is_visible("#text2video_interrupt")
    wait_gone(page)
    page.wait_for_function("!document.querySelector('#text2video_generate').disabled")
    page.wait_for_function("document.querySelector('#text2video_status').innerText.includes('1 video saved')")
    assert len(server.videos() - before) == 2


def test_a_run_that_overtakes_another_leaves_interrupt_to_it(page: Page) -> None:
    slow(page, 60)
    asked: list[str] = []

    def overtaken(route: Route) -> None:
        task = route.request.post_data_json["id_task"]
        asked.extend([task] if task not in asked else [])
        if asked.index(task) == 1:
            route.fulfill(json={"completed": True})
        else:
            route.continue_()

    page.route("**/internal/progress", overtaken)
    page.evaluate("for (let press = 0; press < 2; press++) document.querySelector('#text2video_generate').click()")
    while len(asked) < 2:
        page.wait_for_timeout(100)
    page.wait_for_function("document.querySelectorAll('.progressDiv').length === 1")
    assert page.is_disabled("#text2video_generate")
    page.click("#text2video_interrupt")
    wait_gone(page)
    assert page.is_enabled("#text2video_generate")


def test_small_buttons(page: Page) -> None:
    slow(page, 2)
    set_number(page, "width", 128)
    page.click("#text2video_swap")
    page.wait_for_function("document.querySelector('#text2video_height input[type=number]').value === '128'")
    assert number(page, "width") == 64
    set_number(page, "seed", 99)
    run(page)
    page.click("#text2video_random_seed")
    page.wait_for_function("document.querySelector('#text2video_seed input').value === '-1'")
    page.click("#text2video_reuse_seed")
    page.wait_for_function("document.querySelector('#text2video_seed input').value === '99'")
    prompt(page, "x")
    page.click("#text2video_clear_prompt")
    page.wait_for_function("document.querySelector('#text2video_prompt textarea').value === ''")


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_nothing_is_wider_than_the_window(page: Page, server: Server, theme: str) -> None:
    page.goto(f"{server.address}?__theme={theme}")
    page.wait_for_selector("#text2video_generate")
    for width in (1280, 768):
        page.set_viewport_size({"width": width, "height": 1000})
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.is_visible("#text2video_generate")


def pause(page: Page) -> None:
    """Of a person, who reads. What is pressed within milliseconds of an answer, gradio 4.40 may lose."""
    page.wait_for_timeout(1000)


@pytest.fixture
def potat1(server: Server, hub: Hub) -> Iterator[Path]:
    """Where that model goes, which the hub has; in truth it is the miniature."""
    model = find_known("potat1")
    assert model
    for file in model.files:
        hub.put(file.repository, file.path, (MODEL_FOLDER / file.name).read_bytes())
    yield model.goal(server.models, server.models)
    hub.slow = None
    shutil.rmtree(server.models / "text2video")


def test_a_model_is_downloaded_stopped_and_downloaded_on(page: Page, potat1: Path, hub: Hub) -> None:
    hub.slow, unet = threading.Event(), "text2video_pytorch_model.pth"
    said = "document.querySelector('#text2video_download_status').innerText"
    page.click("#text2video_models_fold button, #text2video_models_fold .label-wrap")
    assert "not for commercial use" in page.inner_text("#text2video_about_known")
    pick(page, "known_model", "potat1")
    page.wait_for_function(f"document.querySelector('#text2video_about_known').innerText.includes({str(potat1)!r})")
    page.click("#text2video_download")
    page.wait_for_function(f"/Asking| [GM]B/.test({said})")
    page.click("#text2video_stop_download")
    pause(page)
    hub.slow.set()
    page.wait_for_function(f"{said}.includes('press Download to continue')")
    assert not (potat1 / unet).exists()
    pause(page)
    page.click("#text2video_download")
    page.wait_for_function(f"{said}.includes('was downloaded.')")
    assert (potat1 / unet).read_bytes() == (MODEL_FOLDER / unet).read_bytes()
    pick(page, "model", "potat1")
    page.click("#text2video_advise")
    page.wait_for_function("document.querySelector('#text2video_frames input[type=number]').value === '8'")


def pick(page: Page, dropdown: str, name: str) -> None:
    pause(page)
    page.click(f"#text2video_{dropdown} input")
    page.locator("ul.options li", has_text=name).first.click()


@pytest.fixture
def wrongs(server: Server) -> Iterator[None]:
    """A model in the wrong folder, one with a web page as its UNet and a flipped bit, and half a conversion."""
    shutil.copytree(MODEL_FOLDER, server.models / "Stable-diffusion" / "t2v")
    broken = server.models / "text2video" / "<b>broken</b>"
    broken.mkdir(parents=True)
    (broken / "text2video_pytorch_model.pth").write_text("<html>", encoding="utf-8")
    spoilt = bytearray((MODEL_FOLDER / "VQGAN_autoencoder.pth").read_bytes())
    spoilt[len(spoilt) // 2] ^= 1
    (broken / "VQGAN_autoencoder.pth").write_bytes(spoilt)
    shutil.copy(MODEL_FOLDER / "configuration.json", broken)
    half = server.models / "text2video" / f".{'0' * 32}.part"
    half.mkdir()
    shutil.copy(MODEL_FOLDER / "configuration.json", half)
    yield
    for folder in ("Stable-diffusion", "ModelScope", "text2video"):
        shutil.rmtree(server.models / folder, ignore_errors=True)
    (server.models / "ModelScope" / "t2v").mkdir(parents=True)


@pytest.mark.usefixtures("wrongs")
def test_the_doctor_finds_moves_and_converts(page: Page, server: Server) -> None:
    page.click("#text2video_models_fold button, #text2video_models_fold .label-wrap")
    page.set_checked("#text2video_thorough input", True)
    pause(page)
    page.click("#text2video_check_models")
    report = "document.querySelector('#text2video_models_report').innerText"
    page.wait_for_function(f"{report}.includes('is a web page') && {report}.includes('<b>broken</b>')")
    assert "belongs in" in page.inner_text("#text2video_models_report")
    assert "does not match its checksum" in page.inner_text("#text2video_models_report")
    pause(page)
    page.click("#text2video_move_files")
    page.wait_for_function(f"{report}.includes('was moved to')")
    assert (server.models / "ModelScope" / "t2v" / "text2video_pytorch_model.pth").is_file()
    pause(page)
    page.click("#text2video_clean_leftovers")
    page.wait_for_function(f"{report}.includes(': removed')")
    assert not list((server.models / "text2video").glob(".*"))
    page.wait_for_selector("#text2video_clean_leftovers", state="hidden")
    pause(page)
    page.click("#text2video_convert_model")
    page.wait_for_function(f"{report}.includes('read back')")
    assert (server.models / "text2video" / "miniature (bundled demo)-fp16" / "configuration.json").is_file()
    pause(page)
    page.click("#text2video_convert_model")
    page.wait_for_function(f"{report}.includes('already exists')")
