"""The Source and Improve folds in a browser, under both versions of gradio."""

import subprocess
from pathlib import Path

import pytest
from playwright.sync_api import Page

from sd_t2v.t2v_helpers.video.ffmpeg import find_ffmpeg
from sd_t2v.t2v_helpers.video.metadata import read_tags
from sd_t2v.t2v_helpers.video.source import examine
from sd_t2v.tests.browser.pages import Server, prompt, run, set_number, status

SOURCE_STATUS = "#text2video_source_status"


@pytest.fixture
def film(tmp_path: Path) -> Path:
    path = tmp_path / "my film.mp4"
    inputs = ("-f", "lavfi", "-i", "testsrc=s=96x64:r=10:d=3", "-pix_fmt", "yuv420p")
    subprocess.run([find_ffmpeg(), "-v", "error", *inputs, str(path)], check=True, timeout=60)
    return path


def open_fold(page: Page, name: str) -> None:
    page.click(f"#text2video_{name} > .label-wrap")


def small(page: Page) -> None:
    page.wait_for_function("document.querySelector('#text2video_width input[type=number]').value === '64'")
    prompt(page, "a red ball")
    for name, value in (("frames", 4), ("steps", 3)):
        set_number(page, name, value)


def new_video(server: Server, before: set[Path]) -> Path:
    (made,) = server.videos() - before
    return made


def test_a_video_that_is_dropped_is_the_source_until_it_is_removed(page: Page, server: Server, film: Path) -> None:
    small(page)
    open_fold(page, "source_fold")
    assert "from the prompt alone" in page.inner_text(SOURCE_STATUS)
    page.set_input_files("#text2video_source input[type=file]", film)
    page.wait_for_function(f"document.querySelector('{SOURCE_STATUS}').innerText.includes('3.0 seconds')")
    assert "10 frames per second" in page.inner_text(SOURCE_STATUS)
    set_number(page, "strength", 0.4)
    before = server.videos()
    assert "1 video saved" in run(page)
    text = read_tags(new_video(server, before))
    assert "Source: my film.mp4" in text and "Denoising strength: 0.4" in text
    page.click("#text2video_source_clear")
    page.wait_for_function(f"document.querySelector('{SOURCE_STATUS}').innerText.includes('prompt alone')")
    before = server.videos()
    assert "1 video saved" in run(page)
    assert "Source:" not in read_tags(new_video(server, before))


def test_restored_settings_replace_the_source_and_the_file_can_become_it(
    page: Page, server: Server, film: Path
) -> None:
    small(page)
    before = server.videos()
    assert "1 video saved" in run(page)
    made = new_video(server, before)
    open_fold(page, "source_fold")
    page.set_input_files("#text2video_source input[type=file]", film)
    page.wait_for_function(f"document.querySelector('{SOURCE_STATUS}').innerText.includes('3.0 seconds')")
    page.set_input_files("#text2video_restore input[type=file]", made)
    page.wait_for_function(f"document.querySelector('{SOURCE_STATUS}').innerText.includes('prompt alone')")
    page.click("#text2video_restore_fold >> text=Settings from a video")
    page.click("#text2video_use_restored")
    page.wait_for_function(f"document.querySelector('{SOURCE_STATUS}').innerText.includes('{made.name}')")
    # So does one without settings.
    page.set_input_files("#text2video_restore input[type=file]", film)
    page.wait_for_function("document.querySelector('#text2video_restored').innerText.includes('contains no settings')")
    page.click("#text2video_use_restored")
    page.wait_for_function(f"document.querySelector('{SOURCE_STATUS}').innerText.includes('3.0 seconds')")
    before = server.videos()
    assert "1 video saved" in run(page)
    assert "Source: my film.mp4" in read_tags(new_video(server, before))


def test_a_path_is_a_source_too_and_a_wrong_one_is_said(page: Page, server: Server, film: Path, tmp_path: Path) -> None:
    small(page)
    open_fold(page, "source_fold")
    (tmp_path / "text.mp4").write_text("no video")
    for path, words in (
        (tmp_path / "gone.mp4", "no file"),
        (tmp_path / "text.mp4", "cannot be read as a video"),
        (film, "3.0 s"),
    ):
        page.fill("#text2video_source_path textarea, #text2video_source_path input", str(path))
        page.press("#text2video_source_path textarea, #text2video_source_path input", "Enter")
        page.wait_for_function(f"document.querySelector('{SOURCE_STATUS}').innerText.includes({words!r})")
    before = server.videos()
    run(page)
    assert "Source: my film.mp4" in read_tags(new_video(server, before))


def test_a_result_is_continued_and_improved(page: Page, server: Server) -> None:
    small(page)
    page.click("#text2video_continue")
    page.wait_for_function(f"document.querySelector('{SOURCE_STATUS}').textContent.includes('no video here yet')")
    before = server.videos()
    run(page)
    first = new_video(server, before)
    page.click("#text2video_continue")
    page.wait_for_function(f"document.querySelector('{SOURCE_STATUS}').textContent.includes({first.name!r})")
    open_fold(page, "improve_fold")
    page.wait_for_function("document.querySelector('#text2video_extend input[type=number]').value === '1'")
    set_number(page, "interpolate", 2)
    before = server.videos()
    assert "saved" in run(page)
    made = max(server.videos() - before)
    about = examine(made)
    # Four frames and three more, then one between each two.
    assert (about.rate, round((about.seconds or 0) * 16)) == (16, 13)
    set_number(page, "interpolate", 1)
    set_number(page, "extend", 0)
    set_number(page, "hires_scale", 1.5)
    page.click("#text2video_improve")
    page.wait_for_function("document.querySelector('#text2video_hires input').value === 'same'")
    before = server.videos()
    assert "1 video saved" in run(page)
    assert examine(new_video(server, before)).width == 96


def test_a_frame_of_a_result_becomes_the_first_frame(page: Page, server: Server) -> None:
    small(page)
    run(page)
    open_fold(page, "source_fold")
    open_fold(page, "images_fold")
    open_fold(page, "frame_fold")
    page.wait_for_selector("#text2video_frame_image img")
    page.click("#text2video_use_as_first")
    page.wait_for_selector("#text2video_first img")
    before = server.videos()
    run(page)
    assert "Images: 0=" in read_tags(new_video(server, before))


def test_hires_fix_of_a_batch(page: Page, server: Server) -> None:
    small(page)
    open_fold(page, "improve_fold")
    page.click("#text2video_hires input")
    page.click("text=same >> nth=0")
    set_number(page, "hires_scale", 1.5)
    set_number(page, "batch_count", 2)
    before = server.videos()
    assert "2 videos saved" in run(page)
    assert all("Second pass scale: 1.5" in read_tags(path) for path in server.videos() - before)


def test_pictures_and_frames_that_do_not_match_are_said(page: Page, tmp_path: Path) -> None:
    small(page)
    open_fold(page, "source_fold")
    open_fold(page, "images_fold")
    page.fill("#text2video_frames_of_others textarea, #text2video_frames_of_others input", "3")
    page.click("#text2video_generate")
    page.wait_for_function("document.querySelector('#text2video_status').innerText.includes('0 other pictures')")
    assert "1 frame for them" in status(page)
