"""Colours as they are computed: errors are red, links look like links, small print is grey, and all can be read."""

import re
from typing import NamedTuple

import pytest
from playwright.sync_api import Browser, Page

from sd_t2v.tests.helpers.chromium import opened_page

from .pages import Server, prompt, run, set_number

COMPUTED = """(selector) => {
    const numbers = (colour) => {
        const context = Object.assign(document.createElement('canvas'), {width: 1, height: 1}).getContext('2d');
        context.fillStyle = colour;
        context.fillRect(0, 0, 1, 1);
        return [...context.getImageData(0, 0, 1, 1).data];
    };
    const element = document.querySelector(selector);
    const colour = numbers(getComputedStyle(element).color);
    // The nearest background that is not transparent.
    for (let one = element; one; one = one.parentElement) {
        const behind = numbers(getComputedStyle(one).backgroundColor);
        if (behind[3] > 250) return [colour, behind];
    }
    return [colour, [255, 255, 255, 255]];
}"""
READABLE = 4.5
"""WCAG 2's contrast for text."""


class Colours(NamedTuple):
    """Of an element's text, and of what is behind it."""

    text: list[int]
    behind: list[int]

    @property
    def contrast(self) -> float:
        darker, lighter = sorted(map(luminance, self))
        return (lighter + 0.05) / (darker + 0.05)

    @property
    def is_red(self) -> bool:
        red, green, blue, _ = self.text
        return red > green + 60 and red > blue + 60


def luminance(colour: list[int]) -> float:
    """WCAG 2's relative luminance."""
    linear = [value / 3294.6 if value <= 10 else ((value / 255 + 0.055) / 1.055) ** 2.4 for value in colour[:3]]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def colours(page: Page, selector: str) -> Colours:
    page.wait_for_selector(selector, state="attached")
    return Colours(*page.evaluate(COMPUTED, selector))


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_texts_have_their_colours_and_can_be_read(theme: str, browser: Browser, server: Server) -> None:
    with opened_page(browser, f"{server.address}?__theme={theme}") as page:
        body = colours(page, "#text2video_prompt label span")
        small_print = colours(page, "#text2video_source_status .text2video-note")
        page.click("#text2video_restore_fold >> text=Settings from a video")
        page.fill("#text2video_restore_path textarea, #text2video_restore_path input", "/nowhere.mp4")
        page.keyboard.press("Enter")
        error = colours(page, "#text2video_restored .text2video-error")
        prompt(page, "a red ball")
        set_number(page, "frames", 2)
        set_number(page, "steps", 1)
        assert re.search("1 video saved", run(page))
        link = colours(page, ".text2video-link a")
        path = colours(page, ".text2video-link span")
        line = page.evaluate("getComputedStyle(document.querySelector('.text2video-link a')).textDecorationLine")
    assert error.is_red, error
    assert not link.is_red and line == "underline"
    for grey in (small_print, path):
        assert grey.text != body.text
    found = {"error": error, "small print": small_print, "link": link, "path": path}
    assert not {name: one for name, one in found.items() if one.contrast < READABLE}
