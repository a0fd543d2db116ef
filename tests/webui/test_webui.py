"""Inside real WebUIs. Runs where SD_WEBUI_DIR or SD_FORGE_DIR names a checkout with an environment in its venv/."""

import json
import os
import re
import shutil
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, NamedTuple

import pytest
from playwright.sync_api import Browser, Page

from sd_t2v.miniature.recipe import MODEL_FOLDER
from sd_t2v.t2v_helpers.settings import KEEP, SAVE_TEXT, SETTINGS, WEBUI_SETTINGS, Setting
from sd_t2v.t2v_helpers.video.ffmpeg import find_ffmpeg
from sd_t2v.t2v_helpers.video.metadata import read_tags
from sd_t2v.tests.browser.pages import set_number, status
from sd_t2v.tests.helpers.chromium import chromium, opened_page
from sd_t2v.tests.helpers.support import free_port, seen_in

ROOT = Path(__file__).resolve().parents[2]
HOSTS = {
    "SD_WEBUI_DIR": ["--use-cpu", "all", "--no-half", "--skip-load-model-at-start", "--freeze-settings"],
    "SD_FORGE_DIR": ["--always-cpu", "--skip-python-version-check"],
}
COMMON = [
    "--skip-prepare-environment",
    "--skip-torch-cuda-test",
    "--skip-version-check",
    "--no-download-sd-model",
    "--api",
]
AWAY_AND_BACK = {
    "SD_WEBUI_DIR": ["send_model_to_cpu", "send_model_to_device"],
    # Forge loads again by itself.
    "SD_FORGE_DIR": ["unload_all_models"],
}
NEIGHBOUR = """
import modelscope
from modules import script_callbacks
print("NEIGHBOUR", modelscope.__file__, flush=True)
def later(demo, app):
    import modelscope.snapshot_download
    print("NEIGHBOUR LATER", modelscope.snapshot_download.__file__, flush=True)
    app.add_api_route("/neighbour", lambda: moves)

# Stable Diffusion's place is taken by a small module; the host's own functions move it, and are watched.
moves = []
def watched(owner, name):
    function = getattr(owner, name)
    def called(*arguments, **options):
        moves.append(name)
        return function(*arguments, **options)
    setattr(owner, name, called)

try:
    from backend import memory_management
    watched(memory_management, "unload_all_models")
except ImportError:
    import torch
    from modules import sd_models
    stand_in = torch.nn.Linear(1, 1)
    stand_in.lowvram = stand_in.is_sdxl = False
    def place(demo, app):
        sd_models.model_data.sd_model = stand_in
        sd_models.model_data.was_loaded_at_least_once = True
    script_callbacks.on_app_started(place)
    watched(sd_models, "send_model_to_cpu")
    watched(sd_models, "send_model_to_device")
script_callbacks.on_app_started(later)
"""


class Host(NamedTuple):
    """A running WebUI. data: its --data-dir, apart from the checkout, which stays as it was."""

    kind: str
    data: Path
    address: str
    log: Path


@pytest.fixture(scope="module", params=HOSTS)
def host(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    named = os.environ.get(request.param)
    if not named:
        pytest.skip(f"{request.param} names no WebUI")
    folder, data = Path(named), tmp_path_factory.mktemp("webui")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), str(fake_modelscope(data))])}
    install(folder, environment, data / "extensions")
    (data / "config.json").write_text(json.dumps({SAVE_TEXT.key: True, KEEP.key: "nonsense"}))
    (data / "ui-config.json").write_text(json.dumps({"text2video/CFG scale/value": 6.5}))
    with (data / "log").open("w") as output:
        yield from running(request.param, folder, environment, Path(output.name), output)


def fake_modelscope(data: Path) -> Path:
    """A search path with a regular package named as PyPI's."""
    package = data / "site" / "modelscope"
    package.mkdir(parents=True)
    for name in ("__init__.py", "snapshot_download.py"):
        (package / name).touch()
    return package.parent


def python_of(folder: Path) -> str:
    return str(folder / "venv" / ("Scripts/python.exe" if os.name == "nt" else "bin/python"))


def install(folder: Path, environment: dict[str, str], extensions: Path) -> None:
    """What Install from URL does, and a neighbour."""
    ours, neighbour = extensions / "sd-webui-text2video", extensions / "a-neighbour"
    subprocess.run(["git", "clone", "--quiet", "--filter=blob:none", str(ROOT), str(ours)], check=True, timeout=300)
    subprocess.run([python_of(folder), str(ours / "install.py")], check=True, cwd=folder, env=environment, timeout=300)
    (neighbour / "scripts").mkdir(parents=True)
    (neighbour / "scripts" / "neighbour.py").write_text(NEIGHBOUR)


def running(kind: str, folder: Path, environment: dict[str, str], log: Path, output: IO[str]) -> Iterator[Host]:
    port = free_port()
    # With its data elsewhere Forge forbids gradio to serve Forge's own scripts, unless told so.
    apart = ["--data-dir", str(log.parent), "--gradio-allowed-path", str(folder)]
    command = [python_of(folder), "launch.py", "--port", str(port), *apart, *COMMON, *HOSTS[kind]]
    quiet = {"SD_WEBUI_RESTARTING": "1", "GRADIO_ANALYTICS_ENABLED": "False", "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(command, cwd=folder, env=environment | quiet, stdout=output, stderr=subprocess.STDOUT)
    try:
        for _ in range(1200):
            if started(log):
                break
            assert process.poll() is None, log.read_text(errors="replace")[-3000:]
            time.sleep(0.25)
        yield Host(kind, log.parent, f"http://127.0.0.1:{port}/", log)
    finally:
        process.kill()
        process.wait(60)


def started(log: Path) -> int:
    """How many times the WebUI has come up."""
    return log.read_text(errors="replace").count("Startup time")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as found:
        yield found


@pytest.fixture(scope="module")
def page(host: Host, browser: Browser) -> Iterator[Page]:
    with opened_page(browser, host.address) as opened:
        opened.evaluate("switch_to_text2video()")
        opened.wait_for_selector("#text2video_generate", state="visible")
        yield opened


def wait_for_value(page: Page, name: str, value: str) -> None:
    page.wait_for_function(
        "([name, value]) => document.querySelector(`#text2video_${name} input[type=number]`).value === value",
        arg=[name, value],
    )


def moves(host: Host, page: Page) -> list[str]:
    """Every call so far of the host's functions that move Stable Diffusion."""
    return list(page.request.get(f"{host.address}neighbour").json())


def made_videos(host: Host) -> set[Path]:
    """Finished ones: not what is being written."""
    found = (host.data / "outputs" / "text2video").rglob("*.mp4")
    return {path for path in found if ".partial" not in path.name}


def described(path: Path) -> str:
    """What ffmpeg says of a file."""
    command = [find_ffmpeg(), "-i", str(path)]
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=300).stderr


def test_a_prompt_becomes_a_video_and_stable_diffusion_stays_as_it_was(host: Host, page: Page) -> None:
    before, moved = made_videos(host), len(moves(host, page))
    wait_for_value(page, "width", "64")
    page.fill("#text2video_prompt textarea", "a yellow square moving right")
    page.fill("#text2video_seed input", "4")
    page.keyboard.press("Control+Enter")
    page.wait_for_selector("#tab_text2video .livePreview img", state="attached")
    assert "sampling" in page.inner_text("#tab_text2video .progressDiv")
    page.wait_for_function("document.querySelector('#text2video_players video')?.currentTime > 0", timeout=120_000)
    (made,) = made_videos(host) - before
    about = described(made)
    assert "Video: h264" in about
    assert "64x64" in about
    assert "Seed: 4" in read_tags(made)
    assert seen_in(made) == ("yellow", "square", "right")
    link = str(page.get_by_role("link", name="Click here").get_attribute("href"))
    assert page.request.get(host.address + link).body() == made.read_bytes()
    assert moves(host, page)[moved:] == AWAY_AND_BACK[host.kind]


def test_a_lora_in_the_hosts_folder_is_used(host: Host, page: Page) -> None:
    loras, before = host.data / "models" / "Lora", made_videos(host)
    loras.mkdir(parents=True, exist_ok=True)
    shutil.copy(ROOT / "miniature" / "lora" / "bar.safetensors", loras)
    page.fill("#text2video_prompt textarea", "a red bar moving left <lora:bar:1>")
    set_number(page, "cfg_scale", 2)
    page.click("#text2video_generate")
    wait_until(lambda: made_videos(host) != before, page)
    (made,) = made_videos(host) - before
    assert seen_in(made) == ("red", "bar", "left")
    page.wait_for_function("document.querySelector('#text2video_status').innerText.includes('1 video saved')")
    set_number(page, "cfg_scale", 6.5)


def test_the_doctor_looks_into_the_hosts_folders(host: Host, page: Page) -> None:
    model = shutil.copytree(MODEL_FOLDER, host.data / "models" / "text2video" / "mine")
    (model / "VQGAN_autoencoder.pth").write_text("<html>", encoding="utf-8")
    page.click("#text2video_models_fold button, #text2video_models_fold .label-wrap")
    page.click("#text2video_check_models")
    page.wait_for_function("document.querySelector('#text2video_models_report').innerText.includes('is a web page')")
    wrong = page.locator("#text2video_models_report tr.wrong")
    assert wrong.count() == 1
    assert str(model) in wrong.inner_text()
    shutil.rmtree(model)


def ask(host: Host, path: str, body: object, **headers: str) -> tuple[int, str]:
    """As a program asks, or another site's page."""
    about = {"Content-Type": "application/json"} | {name.replace("_", "-"): value for name, value in headers.items()}
    request = urllib.request.Request(f"{host.address}{path}", json.dumps(body).encode(), about)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def described_event(host: Host) -> tuple[str, int]:
    """Where gradio takes events without its queue, and the number of the one that describes a known model."""
    with urllib.request.urlopen(f"{host.address}config") as answer:
        config = json.load(answer)
    part = next(part["id"] for part in config["components"] if part["props"].get("elem_id") == "text2video_about_known")
    number = next(number for number, event in enumerate(config["dependencies"]) if event["outputs"] == [part])
    return "api/predict" if config["version"].startswith("3.") else "run/predict", number


def test_other_sites_do_not_reach_our_events(host: Host, page: Page) -> None:
    path, number = described_event(host)
    body = {"fn_index": number, "data": ["modelscope-original"], "session_hash": "x"}
    own = host.address.rstrip("/")
    assert "GB is free" in ask(host, path, body)[1]
    assert "GB is free" in ask(host, path, body, Origin=own, Sec_Fetch_Site="same-origin")[1]
    elsewhere = [{"Origin": "http://evil.example"}, {"Origin": "null"}, {"Sec_Fetch_Site": "cross-site"}]
    for headers in [*elsewhere, {"Host": "evil.example"}]:
        code, said = ask(host, path, body, **headers)
        assert (code, "Refused" in said, "GB is free" in said) == (500, True, False)
        # gradio 3 believes a body that says where its request comes from.
        told = {"headers": {"host": own.partition("://")[2]}, "client": {"host": "127.0.0.1", "port": 1}}
        assert "GB is free" not in ask(host, path, body | {"request": told}, **headers)[1]


def test_runs_of_several_people_wait_for_one_another(host: Host, page: Page, browser: Browser) -> None:
    set_number(page, "steps", 150)
    set_number(page, "frames", 60)
    page.click("#text2video_generate")
    page.wait_for_function("/sampling \\d/.test(document.querySelector('#tab_text2video .progressDiv')?.innerText)")
    # Each with a browser of their own, which opens six connections at most: gradio 4 holds two for every page.
    with opened_page(browser, host.address) as second, opened_page(browser, host.address) as third:
        for other in (second, third):
            other.evaluate("switch_to_text2video()")
            wait_for_value(other, "width", "64")
            other.click("#text2video_generate")
            bar = "document.querySelector('#tab_text2video .progressDiv')?.innerText"
            other.wait_for_function(f"/In queue/.test({bar})")
        page.click("#text2video_interrupt")
        page.wait_for_function("document.querySelector('#text2video_status').innerText.includes('interrupted')")
        for other in (second, third):
            other.wait_for_function("document.querySelector('#text2video_status').innerText.includes('1 video saved')")
    set_number(page, "steps", 2)
    set_number(page, "frames", 8)
    page.click("#text2video_generate")
    page.wait_for_function("document.querySelector('#text2video_status').innerText.includes('1 video saved')")


def test_saved_settings_and_defaults_hold(host: Host, page: Page) -> None:
    assert page.input_value("#text2video_cfg_scale input[type=number]") == "6.5"
    assert str(host.data / "models" / "ModelScope" / "t2v") in page.inner_text("#text2video_note")
    assert {path.with_suffix(".txt").exists() for path in made_videos(host)} == {True}


def test_interrupt_acts_and_the_next_run_works(host: Host, page: Page) -> None:
    moved = len(moves(host, page))
    page.fill("#text2video_steps input[type=number]", "150")
    page.click("#text2video_generate")
    page.wait_for_function("/sampling \\d/.test(document.querySelector('#tab_text2video .progressDiv')?.innerText)")
    page.click("#text2video_interrupt")
    page.wait_for_function(
        "document.querySelector('#text2video_status').innerText.includes('interrupted')", timeout=20_000
    )
    assert moves(host, page)[moved:] == AWAY_AND_BACK[host.kind]
    page.fill("#text2video_steps input[type=number]", "2")
    page.click("#text2video_generate")
    page.wait_for_function("document.querySelector('#text2video_status').innerText.includes('1 video saved')")


def test_png_info_sends_settings_to_the_tab(host: Host, page: Page, tmp_path: Path) -> None:
    from PIL import Image, PngImagePlugin

    info = PngImagePlugin.PngInfo()
    info.add_text(
        "parameters", "a sent cat\nNegative prompt: dog\nSteps: 9, Sampler: UniPC, CFG scale: 3, Seed: 21, Size: 128x64"
    )
    Image.new("RGB", (64, 64)).save(tmp_path / "a.png", pnginfo=info)
    page.click("#tabs button:has-text('PNG Info')")
    page.set_input_files("#pnginfo_image input[type=file]", tmp_path / "a.png")
    page.wait_for_selector("#tab_pnginfo >> text=a sent cat")
    page.click("#text2video_tab")
    page.wait_for_function("document.querySelector('#text2video_prompt textarea').value === 'a sent cat'")
    wait_for_value(page, "steps", "9")
    wait_for_value(page, "height", "64")
    page.wait_for_selector("#text2video_generate", state="visible")


def clear_source(page: Page) -> None:
    page.evaluate("switch_to_text2video()")
    page.evaluate("document.querySelector('#text2video_source_clear').click()")
    page.wait_for_function("!document.querySelector('#text2video_first img')")


def test_pictures_of_other_tabs_become_the_first_frame(host: Host, page: Page, tmp_path: Path) -> None:
    """From PNG Info, and from a gallery: that of Extras, which needs no checkpoint."""
    from PIL import Image

    Image.new("RGB", (64, 64), (219, 31, 36)).save(tmp_path / "red.png")
    page.click("#tabs button:has-text('PNG Info')")
    page.set_input_files("#pnginfo_image input[type=file]", tmp_path / "red.png")
    page.wait_for_selector("#pnginfo_image img")
    page.click("#text2video_from_pnginfo")
    page.wait_for_selector("#text2video_first img", state="attached")
    clear_source(page)
    page.click("#tabs button:has-text('Extras')")
    page.set_input_files("#extras_image input[type=file]", tmp_path / "red.png")
    page.wait_for_selector("#extras_image img")
    page.click("#extras_generate")
    page.wait_for_selector("#extras_gallery img", timeout=60_000)
    page.click("#extras_send_to_text2video")
    page.wait_for_selector("#text2video_first img", state="attached")
    before = made_videos(host)
    page.click("#text2video_generate")
    wait_until(lambda: made_videos(host) != before, page)
    (made,) = made_videos(host) - before
    assert "Images: 0=" in read_tags(made)
    clear_source(page)


def test_a_neighbour_gets_the_modelscope_it_means(host: Host) -> None:
    found = re.findall(r"NEIGHBOUR.*? (\S+\.py)", host.log.read_text(errors="replace"))
    assert len(found) == 2
    assert all("site" in Path(path).parts for path in found)


def test_a_frame_goes_to_img2img(page: Page) -> None:
    page.evaluate("switch_to_text2video()")
    page.click("#text2video_frame_fold >> text=Use a frame")
    page.fill("#text2video_frame input[type=number]", "3")
    page.wait_for_selector("#text2video_frame_image img")
    page.click("#text2video_frame_fold #img2img_tab")
    page.wait_for_selector("#img2img_image img, #img2img_image canvas", state="visible")
    page.evaluate("switch_to_text2video()")


@pytest.mark.parametrize("setting", [*SETTINGS, *WEBUI_SETTINGS], ids=lambda setting: setting.key)
def test_every_setting_has_a_widget(setting: Setting, page: Page) -> None:
    assert page.locator(f"#setting_{setting.key}").count() == 1


def test_skip_goes_on_with_the_next_video(page: Page) -> None:
    set_number(page, "steps", 60)
    set_number(page, "batch_count", 2)
    page.click("#text2video_generate")
    page.wait_for_function("/video 1 of 2/.test(document.querySelector('#tab_text2video .progressDiv')?.innerText)")
    page.keyboard.press("Alt+Enter")
    page.wait_for_function("document.querySelector('#text2video_status').innerText.includes('1 skipped')")
    assert "1 video saved, 1 skipped" in status(page)


def test_what_cannot_be_written_is_said_and_the_next_run_works(host: Host, page: Page) -> None:
    outputs = host.data / "outputs"
    outputs.rename(outputs.with_name("elsewhere"))
    outputs.write_text("in the way")
    set_number(page, "steps", 2)
    set_number(page, "batch_count", 1)
    page.click("#text2video_generate")
    page.wait_for_function("document.querySelector('#text2video_status').innerText.includes('another output folder')")
    outputs.unlink()
    page.click("#text2video_generate")
    page.wait_for_function("document.querySelector('#text2video_status').innerText.includes('1 video saved')")


def wait_until(holds: Callable[[], bool], page: Page) -> None:
    for _ in range(480):
        if holds():
            return
        page.wait_for_timeout(250)
    pytest.fail("waited two minutes")


def test_reload_ui_keeps_the_tab(host: Host, page: Page, browser: Browser) -> None:
    # The host's progress bar would not survive the end of its page, nor its --api a page that asks too early.
    page.wait_for_selector(".progressDiv", state="detached")
    page.evaluate("document.querySelector('#settings_restart_gradio').click()")
    wait_until(lambda: "Restarting UI" in host.log.read_text(errors="replace"), page)
    page.goto("about:blank")
    wait_until(lambda: started(host.log) > 1, page)
    with opened_page(browser, host.address) as again:
        again.evaluate("switch_to_text2video()")
        set_number(again, "steps", 2)
        again.click("#text2video_generate")
        again.wait_for_function("document.querySelector('#text2video_status').innerText.includes('1 video saved')")
        assert again.locator("#setting_text2video_preview").count() == 1
