# SPDX-License-Identifier: Apache-2.0
"""Text of exactly so many terminal cells."""

from __future__ import annotations

from rich.cells import cell_len, set_cell_size


def safe(text: str) -> str:
    """The text without control characters: names come from processes that nobody vouches for."""
    return text if text.isprintable() else "".join(c if c.isprintable() else "?" for c in text)


def fitted(text: str, width: int, right: bool = False) -> str:
    """The text cut (``…``) or padded to ``width`` cells; numbers go to the right."""
    text = safe(text)
    room = width - cell_len(text)
    if room < 0:
        return set_cell_size(text, width - 1) + "…" if width > 0 else ""
    return " " * room + text if right else text + " " * room


def fitted_end(text: str, width: int) -> str:
    """As :func:`fitted`, but cut in the middle: both ends of an address tell something."""
    text = safe(text)
    if len(text) <= width or width < 5:
        return fitted(text, width)
    tail = (width - 1) * 3 // 5
    return f"{text[: width - 1 - tail]}…{text[-tail:]}"
