"""Amounts of memory and time in words."""

import pytest

from sd_t2v.modelscope.units import format_bytes, format_count, format_duration


@pytest.mark.parametrize(
    ("size", "digits", "words"),
    [
        (0, 1, "0 MB"),
        (-5e9, 1, "0 MB"),
        (99_499_999, 1, "99 MB"),
        (100_000_000, 1, "0.1 GB"),
        (2_820_000_000, 1, "2.8 GB"),
        (2_820_000_000, 2, "2.82 GB"),
        (8_600_000, 2, "8.6 MB"),
        (8_600_000, 0, "9 MB"),
        (1e18, 0, "1000000000 GB"),
    ],
)
def test_bytes_are_gigabytes_or_megabytes(size: float, digits: int, words: str) -> None:
    assert format_bytes(size, digits) == words


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.2, "1 s"), (3.4, "3 s"), (38, "40 s"), (94, "95 s"), (95, "2 min"), (3_500, "58 min"), (3_600, "1 h"),
        (8_500, "2 h 20 min"), (90_000, "25 h"),
    ],
)  # fmt: skip
def test_times_are_as_exact_as_a_forecast_can_be(seconds: float, words: str) -> None:
    assert format_duration(seconds) == words


def test_one_thing_is_not_called_several() -> None:
    assert [format_count(number, "frame") for number in (0, 1, 1200)] == ["0 frames", "1 frame", "1,200 frames"]
