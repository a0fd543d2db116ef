"""Formatting of amounts of memory for people."""

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
