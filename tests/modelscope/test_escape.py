"""Whatever a file calls itself is shown as it is written, and writes nothing itself."""

import io
import logging

import pytest

from sd_t2v.modelscope.errors import ModelError, RequestError
from sd_t2v.modelscope.escape import logger, visible

HIDDEN = "\n\r\t\x00\x1b\x7f\x85\x9b\u2028\u2029\u202a\u202e\u2066\u2069\u200b\u200f\u061c\ufeff\ud800\udcff\U000e0041"
FOREIGN = "a\n  ok   UNet\x1b[8m\u202e"


@pytest.mark.parametrize("character", HIDDEN)
def test_what_is_obeyed_is_escaped(character: str) -> None:
    shown = visible(f"a{character}b")
    assert shown.isprintable()
    assert shown[1] == "\\"
    assert visible(shown) == shown


@pytest.mark.parametrize("text", ["", "a b", "C:\\new\\x", "Ünïcödé 视频 видео", "🎬", "می‌خواهم", "\u200d"])
def test_what_people_write_stays(text: str) -> None:
    assert visible(text) == text


def test_an_errors_lines_are_those_that_were_meant() -> None:
    assert str(ModelError(f"{FOREIGN}: is damaged.")) == r"a\n  ok   UNet\x1b[8m\u202e: is damaged."
    assert str(ModelError("one", FOREIGN)).splitlines() == ["one", r"a\n  ok   UNet\x1b[8m\u202e"]
    assert str(RequestError()) == ""


def test_a_log_has_the_lines_that_were_meant() -> None:
    """With any handler: inside a WebUI they are the host's."""
    written = io.StringIO()
    handler = logging.StreamHandler(written)
    log = logger("sd_t2v.tests.escape")
    assert logger("sd_t2v.tests.escape") is log
    log.addHandler(handler)
    try:
        raise_foreign()
    except ValueError:
        log.exception("Looking at %s", FOREIGN)
    finally:
        log.removeHandler(handler)
    lines = written.getvalue().splitlines()
    assert lines[0] == r"Looking at a\n  ok   UNet\x1b[8m\u202e"
    assert lines[1] == "Traceback (most recent call last):"
    assert lines[-1] == r"ValueError: a\n  ok   UNet\x1b[8m\u202e"
    assert any("in raise_foreign" in line for line in lines)
    assert "\x1b" not in written.getvalue()
    assert not any(line.startswith("  ok") for line in lines)


def raise_foreign() -> None:
    try:
        raise KeyError(FOREIGN)
    except KeyError as error:
        raise ValueError(FOREIGN) from error
