"""Formatting of amounts of memory, time and things for people."""

GIGABYTE, MEGABYTE = 1e9, 1e6


def format_bytes(size: float, digits: int = 1) -> str:
    """Return an amount in words, such as "1.2 GB", or "30 MB" below a tenth of a gigabyte.

    Args:
        size: Number of bytes; a negative number counts as 0.
        digits: Decimal places of gigabytes; megabytes have one fewer.
    """
    if size >= GIGABYTE / 10:
        return f"{size / GIGABYTE:.{digits}f} GB"
    return f"{max(size, 0) / MEGABYTE:.{max(digits - 1, 0)}f} MB"


def format_duration(seconds: float) -> str:
    """Return a duration in words, as exactly as a forecast can be: "2 s", "40 s", "7 min" or "2 h 20 min"."""
    if seconds < 10:
        return f"{max(1, round(seconds))} s"
    if seconds < 95:
        return f"{5 * round(seconds / 5)} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    minutes = 10 * round(minutes / 10)
    return f"{minutes // 60} h {minutes % 60} min" if minutes % 60 else f"{minutes // 60} h"


def format_count(number: int, noun: str) -> str:
    """Return a number of things: "1 frame", "24 frames"."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
