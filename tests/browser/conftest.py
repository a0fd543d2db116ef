"""A real Chromium in front of the real standalone page, under both WebUIs' gradio."""

import os
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page

from sd_t2v.tests.helpers.chromium import chromium, opened_page
from sd_t2v.tests.helpers.hub import Hub, running
from sd_t2v.tests.helpers.support import free_port

from .pages import Server

ROOT = Path(__file__).resolve().parents[2]
GRADIO_3 = Path(__file__).with_name("gradio-3.41.txt")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as found:
        yield found


@pytest.fixture(scope="module", params=["gradio-3.41.2", "gradio-4.40.0"])
def gradio(request: pytest.FixtureRequest) -> list[str]:
    """What goes before .venv's packages on the search path."""
    if request.param == "gradio-4.40.0":
        return []
    if sys.version_info >= (3, 13):
        pytest.skip("gradio 3.41 needs a numpy that Python 3.13 never had")
    return [str(installed_beside(GRADIO_3))]


def installed_beside(requirements: Path) -> Path:
    """The folder inside .venv with these packages; installed once."""
    folder = Path(sys.prefix, requirements.stem)
    stamp = folder / requirements.name
    if not (stamp.exists() and stamp.read_text() == requirements.read_text()):
        shutil.rmtree(folder, ignore_errors=True)
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, "--target", str(folder), "-r", str(requirements)], check=True, timeout=300)
        shutil.copy(requirements, stamp)
    return folder


@pytest.fixture(scope="module")
def hub() -> Iterator[Hub]:
    """What the page downloads from."""
    with running(Hub()) as found:
        yield found


@pytest.fixture(scope="module")
def server(gradio: list[str], hub: Hub, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("page")
    port = free_port()
    outputs, models, settings = folder / ".outputs" / "of mine", folder / "models", folder / "settings.json"
    command = [
        sys.executable,
        "-m",
        "sd_t2v.t2v_helpers.commands.page",
        "--port",
        str(port),
        "--device",
        "cpu",
    ]
    with Path(folder, "log").open("w+", encoding="utf-8") as log:
        process = subprocess.Popen(
            [*command, "--models-dir", str(models), "--output-dir", str(outputs), "--settings", str(settings)],
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join([*gradio, str(ROOT)]),
                "GRADIO_ANALYTICS_ENABLED": "False",
                "HF_ENDPOINT": hub.address,
            },
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        try:
            wait_for(f"http://127.0.0.1:{port}/", process, Path(log.name))
            yield Server(f"http://127.0.0.1:{port}/", outputs, models, settings, Path(log.name))
        finally:
            process.terminate()
            process.wait(30)


def wait_for(address: str, process: "subprocess.Popen[bytes]", log: Path) -> None:
    for _ in range(600):
        assert process.poll() is None, log.read_text()
        try:
            with urllib.request.urlopen(address, timeout=5):
                return
        except OSError:
            time.sleep(0.2)
    pytest.fail(f"the page did not come up: {log.read_text()}")


@pytest.fixture
def page(browser: Browser, server: Server) -> Iterator[Page]:
    """A freshly opened page."""
    with opened_page(browser, server.address) as opened:
        yield opened
