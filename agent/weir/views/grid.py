# SPDX-License-Identifier: Apache-2.0
"""The table on the screen: cells are written in place, the cursor stays on its row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from rich.text import Text
from textual.binding import Binding, BindingType
from textual.coordinate import Coordinate
from textual.message import Message
from textual.widgets import DataTable

from weir.views.layout import GAP, Layout
from weir.views.rates import Rated

#: What says "nothing" is dim, so that numbers stand out.
_NOTHING = frozenset(("", "-", "0", "0 B"))


class Grid(DataTable[Text]):
    """Rows by position. A row that the user went to is followed by its id; on the first row it is not."""

    class Resized(Message):
        """The table has another size now."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("home", "scroll_top", "Top", show=False),
        Binding("end", "scroll_bottom", "Bottom", show=False),
    ]

    def __init__(self) -> None:
        super().__init__(cursor_type="row", cell_padding=0, show_row_labels=False)
        self._layout_shown: tuple[Layout[Rated], str] | None = None
        self._ids: list[str] = []
        self._chosen: str | None = None
        self._placed = 0

    def on_resize(self) -> None:
        self.post_message(self.Resized())

    @property
    def chosen(self) -> str | None:
        """Id of the row under the cursor; None as long as the cursor rests on the first row."""
        self._notice()
        return self._chosen

    def show_rows(self, layout: Layout[Rated], sort: str, rows: Sequence[Rated]) -> None:
        """Show these rows in this order; only cells that differ are written."""
        self._notice()
        if self._layout_shown != (layout, sort):
            self._lay_out(layout, sort)
        for position, rated in enumerate(rows):
            cells = _cells(layout, rated)
            if position < self.row_count:
                self._write(position, cells)
            else:
                self.add_row(*cells, key=str(position))
        for position in range(self.row_count - 1, len(rows) - 1, -1):
            self.remove_row(str(position))
        self._ids = [rated.row.id for rated in rows]
        self._follow()

    def forget(self) -> None:
        """Let the cursor go to the first row."""
        self._chosen = None
        self._placed = 0
        self.move_cursor(row=0)

    def _notice(self) -> None:
        """Where the cursor is not where we put it, the user moved it."""
        at = self.cursor_row
        if at != self._placed and at < len(self._ids):
            self._chosen = self._ids[at] if at else None
            self._placed = at

    def _lay_out(self, layout: Layout[Rated], sort: str) -> None:
        scroll = self.scroll_y
        self.clear(columns=True)
        last = len(layout.columns) - 1
        for i, (column, width) in enumerate(zip(layout.columns, layout.widths, strict=True)):
            room = width + (GAP if i < last else 0)
            self.add_column(Text(column.heading(width, sort)), width=room, key=str(i))
        self._layout_shown = layout, sort
        self._placed = 0
        self.call_after_refresh(self.scroll_to, y=scroll, animate=False)

    def _write(self, position: int, cells: Sequence[Text]) -> None:
        for i, cell in enumerate(cells):
            if self.get_cell_at(Coordinate(position, i)) != cell:
                self.update_cell_at(Coordinate(position, i), cell)

    def _follow(self) -> None:
        if not self._ids:
            self._placed = 0
            return
        at = 0
        if self._chosen is not None:
            if self._chosen in self._ids:
                at = self._ids.index(self._chosen)
            else:  # it is gone: go on with the row that took its place
                at = min(self._placed, len(self._ids) - 1)
                self._chosen = self._ids[at] if at else None
        self._placed = at
        if self.cursor_row != at:
            self.move_cursor(row=at)


def _cells(layout: Layout[Rated], rated: Rated) -> list[Text]:
    pairs = zip(layout.columns, layout.widths, strict=True)
    return [_styled(column.cell(rated, width)) for column, width in pairs]


def _styled(text: str) -> Text:
    return Text(text, "dim" if text.strip() in _NOTHING else "", no_wrap=True)
