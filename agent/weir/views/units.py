# SPDX-License-Identifier: Apache-2.0
"""Numbers for people: decimal units (1 kB = 1000 bytes), three digits, at most seven characters."""

from __future__ import annotations

NONE = "-"

_BYTES = ("B", "kB", "MB", "GB", "TB", "PB", "EB")
_COUNTS = ("", "k", "M", "G", "T", "P", "E")


def amount(value: float | None) -> str:
    """Bytes (or bytes per second, where the heading says so), as in ``1.23 MB``."""
    return NONE if value is None else _scaled(value, _BYTES, " ")


def per_second(value: float | None) -> str:
    """Bytes per second, as in ``1.23 MB/s``."""
    return NONE if value is None else f"{amount(value)}/s"


def count(value: int) -> str:
    """A number that fits five characters, as in ``9999`` or ``12.3k``."""
    return str(value) if value < 10_000 else _scaled(value, _COUNTS, "")


def duration_us(value: float | None) -> str:
    """Microseconds as µs, ms or s, as in ``1.23 ms``."""
    if value is None:
        return NONE
    return _scaled(value, ("µs", "ms", "s", "ks"), " ")


def _scaled(value: float, units: tuple[str, ...], gap: str) -> str:
    step = 0
    while step < len(units) - 1 and round(value, 0 if step == 0 else 2) >= 999.5:
        value /= 1000
        step += 1
    if step == 0 and units[0] != "µs":
        return f"{value:.0f}{gap}{units[0]}"
    return f"{_three(value)}{gap}{units[step]}"


def _three(value: float) -> str:
    return f"{value:.2f}" if value < 9.995 else f"{value:.1f}" if value < 99.95 else f"{value:.0f}"
