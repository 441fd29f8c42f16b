# SPDX-License-Identifier: Apache-2.0
"""Columns of text tables of any kind of row, and which of them fit a width."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Generic, TextIO, TypeVar

from rich.cells import cell_len

from weir.views.cells import fitted, fitted_end, safe

R = TypeVar("R")

GAP = 1


@dataclass(frozen=True)
class Column(Generic[R]):
    """One column: ``width`` is the least it needs, ``most`` what it can make use of (cells).

    ``rank`` says which goes first when there is no room: the highest. ``sort`` is the sort key that
    orders by it.
    """

    title: str
    width: int
    rank: int
    text: Callable[[R], str]
    most: int = 0
    right: bool = False
    #: An address: cut in the middle.
    middle: bool = False
    sort: str = ""

    def cell(self, row: R, width: int) -> str:
        """Text of exactly ``width`` cells."""
        text = self.text(row)
        return fitted_end(text, width) if self.middle else fitted(text, width, self.right)

    def heading(self, width: int, sort: str = "") -> str:
        """Title of exactly ``width`` cells, marked if the table is sorted by it."""
        mark = "▾" if sort and sort == self.sort else ""
        return fitted(self.title + mark, width, self.right)


@dataclass(frozen=True)
class Layout(Generic[R]):
    """Columns with their widths; one blank between two."""

    columns: tuple[Column[R], ...]
    widths: tuple[int, ...]

    def heading(self, sort: str = "") -> str:
        """The line above the rows."""
        return self._line([c.heading(w, sort) for c, w in zip(self.columns, self.widths, strict=True)])

    def line(self, row: R) -> str:
        """One row."""
        return self._line([c.cell(row, w) for c, w in zip(self.columns, self.widths, strict=True)])

    @staticmethod
    def _line(cells: Sequence[str]) -> str:
        return (" " * GAP).join(cells).rstrip()


def laid_out(columns: Sequence[Column[R]], width: int) -> Layout[R]:
    """The columns that fit ``width`` cells, least important ones dropped; the first is always there.

    What is left over goes to the columns that can use it, in equal steps.
    """
    kept = sorted(columns, key=lambda c: c.rank)
    while len(kept) > 1 and _needed(kept) > width:
        kept.pop()
    shown = [c for c in columns if c in kept]
    widths = [c.width for c in shown]
    spare = width - _needed(shown)
    while spare > 0 and (wider := [i for i, c in enumerate(shown) if widths[i] < c.most]):
        for i in wider[:spare]:
            widths[i] += 1
            spare -= 1
    if spare < 0:
        widths[0] = max(1, width)
    return Layout(tuple(shown), tuple(widths))


def natural(columns: Sequence[Column[R]], rows: Sequence[R]) -> Layout[R]:
    """All columns, each as wide as its longest text: for pipes and files."""
    widths = [max([cell_len(c.title) + 1, *(cell_len(safe(c.text(r))) for r in rows)]) for c in columns]
    return Layout(tuple(columns), tuple(widths))


def _needed(columns: Sequence[Column[R]]) -> int:
    return sum(c.width for c in columns) + GAP * (len(columns) - 1)


def lines(columns: Sequence[Column[R]], rows: Sequence[R], out: TextIO, sort: str = "") -> list[str]:
    """The table with its heading: as wide as a terminal is, for pipes and files as wide as it needs."""
    if not out.isatty():
        layout = natural(columns, rows)
        return [layout.heading(sort), *map(layout.line, rows)]
    layout = laid_out(columns, shutil.get_terminal_size().columns)
    return [bold(layout.heading(sort)), *map(layout.line, rows)]


def bold(text: str) -> str:
    """For a terminal, unless the user wants none of it (https://no-color.org)."""
    return text if os.environ.get("NO_COLOR") else f"\x1b[1m{text}\x1b[0m"


def write(found: Iterable[str], out: TextIO) -> None:
    """Lines, as far as the stream's encoding can carry them."""
    out.writelines(printable(line, out) + "\n" for line in found)


def printable(line: str, out: TextIO) -> str:
    """The line as far as the stream's encoding can carry it."""
    encoding = getattr(out, "encoding", None) or "utf-8"
    plain = line.replace("→", ">").replace("←", "<").replace("…", "~").replace("µ", "u").replace("▾", "")
    try:
        line.encode(encoding)
        return line
    except UnicodeEncodeError:
        return plain.encode(encoding, "replace").decode(encoding)
