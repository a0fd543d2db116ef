"""A real Chromium with the tab open in it."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

CHROMIUMS = ("chromium", "chromium-browser", "google-chrome", "chrome", "msedge")
REQUIRED = "TEXT2VIDEO_BROWSER_REQUIRED"
"""Set by the project's own checks: without a browser the tests then fail instead of being skipped."""
FLAGS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-sync"]
START = 120_000
"""Milliseconds for a WebUI to draw its page."""


@contextmanager
def chromium() -> Iterator[Browser]:
    """The browser on the search path."""
    found = next(filter(None, map(shutil.which, CHROMIUMS)), None)
    if found is None:
        message = "no Chromium on the search path: the page was not tested in a browser"
        if os.environ.get(REQUIRED):
            pytest.fail(message)
        pytest.skip(message)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=FLAGS)
        yield browser
        browser.close()


@contextmanager
def another(browser: Browser, *flags: str) -> Iterator[Browser]:
    """The same browser once more, with further flags on its command line."""
    found = next(filter(None, map(shutil.which, CHROMIUMS)))
    one = browser.browser_type.launch(executable_path=found, args=[*FLAGS, *flags])
    yield one
    one.close()


@contextmanager
def opened_page(browser: Browser, address: str) -> Iterator[Page]:
    """A page of a person of their own, once the tab is drawn. Errors in its scripts fail the test."""
    errors: list[str] = []
    context = browser.new_context(viewport={"width": 1280, "height": 1000})
    # Web fonts: there need be no network.
    context.route("https://**", lambda route: route.abort())
    page = context.new_page()
    page.set_default_timeout(180_000)
    page.on("pageerror", lambda error: errors.append(error.stack or str(error)))
    page.goto(address, wait_until="domcontentloaded")
    drawn(page)
    yield page
    context.close()
    assert not errors, errors


def drawn(page: Page) -> None:
    """Wait until the tab's buttons work."""
    page.wait_for_selector("#text2video_note [data-fresh]", state="attached", timeout=START)
