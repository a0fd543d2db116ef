"""The tab as a person sees it."""

import time
from pathlib import Path
from typing import NamedTuple

from playwright.sync_api import Page


class Server(NamedTuple):
    """A running page, where its videos go, where its models are looked for, its settings, and what it printed."""

    address: str
    outputs: Path
    models: Path
    settings: Path
    log: Path

    def videos(self) -> set[Path]:
        """Finished ones: not what is being written."""
        return {path for path in self.outputs.rglob("*.mp4") if ".partial" not in path.name}


def number(page: Page, name: str) -> float:
    return float(page.input_value(f"#text2video_{name} input[type=number]"))


def set_number(page: Page, name: str, value: float | str) -> None:
    page.fill(f"#text2video_{name} input[type=number]", str(value))
    page.press(f"#text2video_{name} input[type=number]", "Tab")


def prompt(page: Page, text: str, name: str = "prompt") -> None:
    page.fill(f"#text2video_{name} textarea", text)


def status(page: Page) -> str:
    return page.inner_text("#text2video_status")


def run(page: Page) -> str:
    """Press Generate and wait for the end."""
    before = page.evaluate(SHOWN)
    page.click("#text2video_generate")
    wait_until_idle(page)
    page.wait_for_function(f"before => {SHOWN} !== before", arg=before)
    return status(page)


# Every run brings new links or another message.
SHOWN = (
    "document.querySelector('#text2video_players').innerHTML + document.querySelector('#text2video_status').innerText"
)


def wait_until_idle(page: Page) -> None:
    page.wait_for_selector(".progressDiv", state="attached")
    page.wait_for_selector(".progressDiv", state="detached", timeout=180_000)


def progress_seen(page: Page, seconds: float = 120) -> tuple[list[str], int]:
    """What the bar says until it goes, and how many previews appeared beside it."""
    texts: list[str] = []
    previews: set[str] = set()
    end = time.monotonic() + seconds
    page.wait_for_selector(".progressDiv", state="attached")
    while time.monotonic() < end:
        seen = page.evaluate(
            "[document.querySelector('.progressDiv')?.innerText, document.querySelector('.livePreview img')?.src]"
        )
        if seen[0] is None:
            break
        texts += [seen[0]] if seen[0] not in texts else []
        previews |= {seen[1]} if seen[1] else set()
        page.wait_for_timeout(30)
    return texts, len(previews)
