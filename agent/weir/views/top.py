# SPDX-License-Identifier: Apache-2.0
"""``weir top``: the live table."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import sys
import time
from collections.abc import Callable, Mapping
from typing import ClassVar

from textual import events
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Input, Static

from weir.errors import ConfigError, WeirError
from weir.views import lines
from weir.views.filters import Match, parse
from weir.views.grid import Grid
from weir.views.layout import laid_out
from weir.views.rates import SORTS, Rated, Rates, Row, ordered, totals
from weir.views.service_names import ServiceNames
from weir.views.source import Lossy, Source
from weir.views.table import CONNECTIONS, EDGES, VIEWS, columns_of

#: Rows in the table; the rest is counted in the status line.
SHOWN = 500
_LEAST_INTERVAL = 0.1
_SCROLLS = frozenset(("up", "down", "pageup", "pagedown", "home", "end"))


class HelpScreen(ModalScreen[None]):
    """What keys and columns mean; any key closes it, but those that scroll."""

    def compose(self) -> ComposeResult:
        with VerticalScroll(id="help"):
            yield Static(lines.HELP, markup=False)

    def on_key(self, event: events.Key) -> None:
        if event.key not in _SCROLLS:
            event.stop()
            self._close()

    def on_click(self) -> None:
        self._close()

    def _close(self) -> None:
        if self.is_current:  # keys may come faster than screens go
            self.dismiss()


class TopApp(App[None]):
    """Reads ``source`` every ``interval`` seconds in a thread and shows the rows."""

    ENABLE_COMMAND_PALETTE = False
    CSS = """
    Screen { background: ansi_default; color: ansi_default; }
    #head, #sums, #status, #keys { height: 1; background: ansi_default; color: ansi_default; }
    Grid { height: 1fr; background: ansi_default; scrollbar-size: 1 1; overflow-x: hidden; }
    Grid > .datatable--header, Grid:focus > .datatable--header, Grid:ansi > .datatable--header {
        background: ansi_default; color: ansi_default; text-style: bold underline; }
    Grid > .datatable--cursor, Grid:focus > .datatable--cursor, Grid > .datatable--hover {
        background: ansi_default; color: ansi_default; text-style: reverse; }
    Grid > .datatable--hover { text-style: none; }
    #filter { height: 1; border: none; padding: 0; display: none; background: ansi_default;
        color: ansi_default; }
    #filter.open { display: block; }
    HelpScreen { align: center middle; background: ansi_default; }
    #help { width: auto; max-width: 100%; max-height: 100%; height: auto; padding: 0 1;
        scrollbar-size: 1 1; border: round ansi_default; background: ansi_default; color: ansi_default; }
    #help Static { width: auto; height: auto; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("q", "quit", "Quit"),
        Binding("ctrl+c", "quit", "Quit", priority=True, show=False),
        Binding("question_mark,h,f1", "help", "Help"),
        Binding("tab", "other_view", "View", priority=True),
        Binding("p", "view('edges')", "Pairs"),
        Binding("c", "view('connections')", "Connections"),
        Binding("s,greater_than_sign", "cycle(1)", "Sort"),
        Binding("less_than_sign", "cycle(-1)", "Sort"),
        Binding("r", "sort('rate')", "Rate"),
        Binding("t", "sort('total')", "Total"),
        Binding("l", "sort('latency')", "Latency"),
        Binding("n", "sort('name')", "Name"),
        Binding("slash", "filter", "Filter"),
        Binding("space", "pause", "Pause"),
        Binding("escape", "unfilter", "Old filter", show=False),
    ]

    def __init__(
        self,
        source: Source,
        interval: float,
        *,
        what: str = EDGES,
        sort: str = "rate",
        filter_text: str = "",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Take the first view, sort key and filter. ConfigError, one line, for one that cannot be."""
        if what not in VIEWS:
            raise ConfigError(f"{what}: there are {' and '.join(VIEWS)}")
        if sort not in SORTS:
            raise ConfigError(f"sort {sort!r}: choose from {', '.join(SORTS)}")
        super().__init__(ansi_color=True)
        self.theme = "ansi-dark"
        self._source, self._interval, self._clock = source, max(interval, _LEAST_INTERVAL), clock
        self._view, self._sort = what, sort
        self._filter_text, self._match = filter_text, parse(filter_text)
        self._before_filter = filter_text
        self._rates = {view: Rates() for view in VIEWS}
        self._rated: list[Rated] = []
        self._columns = {view: columns_of(view, ServiceNames()) for view in VIEWS}
        self._losses: Mapping[str, int] = {}
        self._paused = self._busy = False
        self._problem = self._filter_problem = ""

    def compose(self) -> ComposeResult:
        yield Static(id="head")
        yield Static(id="sums")
        yield Grid()
        yield Static(id="status")
        yield Input(id="filter", placeholder="words, key:value, !word; Enter keeps, Esc undoes", compact=True)
        yield Static(id="keys")

    def on_mount(self) -> None:
        self.query_one(Grid).focus()
        self.set_interval(self._interval, self._tick)
        self._tick()

    def on_grid_resized(self) -> None:
        self._show()

    def _tick(self) -> None:
        if not self._paused and not self._busy:
            self._busy = True
            self.run_worker(self._refresh(), group="read")

    async def _refresh(self) -> None:
        view = self._view
        try:
            rows = await asyncio.to_thread(self._read, view)
        except WeirError as error:
            self._problem = str(error)
        else:
            self._problem = ""
            self._take(view, rows)
        finally:
            self._busy = False
        if view != self._view:
            self._tick()
        self._show()

    def _read(self, view: str) -> list[Row]:
        return [*self._source.edges()] if view == EDGES else [*self._source.connections()]

    def _take(self, view: str, rows: list[Row]) -> None:
        rated = self._rates[view].update(rows, self._clock())
        if view != self._view or self._paused:
            return
        self._rated = rated
        self._losses = dict(self._source.losses()) if isinstance(self._source, Lossy) else {}

    def _show(self) -> None:
        """Write everything that the screen shows; rows are those of the last reading."""
        stack = self.screen_stack
        if not stack or not stack[0].query(Grid):  # before the start, or at the end
            return
        main, width = stack[0], self.size.width
        matching = ordered([r for r in self._rated if self._match(r.row)], self._sort)
        grid = main.query_one(Grid)
        rows = matching[:SHOWN]
        bar = 1 if len(rows) > max(0, grid.size.height - 1) else 0  # the scrollbar's column
        layout = laid_out(self._columns[self._view], width - bar)
        with self.batch_update():
            grid.show_rows(layout, self._sort, rows)
            head = lines.head(socket.gethostname(), self._source.describe(), width)
            main.query_one("#head", Static).update(head)
            sums = lines.sums(self._view, totals(self._rated), self._losses, width)
            main.query_one("#sums", Static).update(sums)
            status = lines.status(
                problem=self._filter_problem or self._problem,
                paused=self._paused,
                sort=self._sort,
                filter_text=self._filter_text,
                hidden=len(matching) - len(rows),
                matched=len(matching),
                width=width,
            )
            main.query_one("#status", Static).update(status)
            main.query_one("#keys", Static).update(lines.keys(self._view, self._paused, width))

    def action_help(self) -> None:
        """Show the help page."""
        self.push_screen(HelpScreen())

    def action_other_view(self) -> None:
        """Go to the other view."""
        self.action_view(CONNECTIONS if self._view == EDGES else EDGES)

    def action_view(self, view: str) -> None:
        """Show pairs or connections, read anew; a pause ends."""
        if view == self._view:
            return
        self._view, self._paused, self._rated = view, False, []
        self.query_one(Grid).forget()
        self._show()
        self._tick()

    def action_cycle(self, step: int) -> None:
        """Take the next sort key."""
        self.action_sort(SORTS[(SORTS.index(self._sort) + step) % len(SORTS)])

    def action_sort(self, sort: str) -> None:
        """Sort by a key of rates.SORTS."""
        self._sort = sort
        self._show()

    def action_pause(self) -> None:
        """Hold the picture, or go on."""
        self._paused = not self._paused
        self._show()
        self._tick()

    def action_filter(self) -> None:
        """Open the filter line."""
        line = self.query_one("#filter", Input)
        self._before_filter = self._filter_text
        line.value = self._filter_text
        line.add_class("open")
        line.focus()

    def action_unfilter(self) -> None:
        """Close the filter line and take the filter from before; where it is closed, take none."""
        line = self.query_one("#filter", Input)
        self._set_filter(self._before_filter if line.has_class("open") else "")
        self._close_filter()

    def on_input_changed(self, event: Input.Changed) -> None:
        if event.input.has_class("open"):
            self._set_filter(event.value)

    def on_input_submitted(self) -> None:
        if not self._filter_problem:  # else the line stays open, to be mended
            self._close_filter()

    def _close_filter(self) -> None:
        self.query_one("#filter", Input).remove_class("open")
        self.query_one(Grid).focus()

    def _set_filter(self, text: str) -> None:
        try:
            match: Match = parse(text)
        except ConfigError as error:
            self._filter_problem = str(error)
        else:
            self._filter_text, self._match, self._filter_problem = text.strip(), match, ""
        self._show()


def run_top(
    source: Source,
    interval: float,
    *,
    what: str = EDGES,
    sort: str = "rate",
    filter_text: str = "",
) -> None:
    """Show the table until the user quits, or SIGTERM or SIGHUP comes. The source stays open.

    WeirError where there is no terminal, ConfigError for a view, sort key or filter that cannot be.
    """
    if not all(stream.isatty() for stream in (sys.stdin, sys.stdout, sys.stderr)):
        raise WeirError("weir top needs a terminal; --once and --json do not")
    app = TopApp(source, interval, what=what, sort=sort, filter_text=filter_text)
    asyncio.run(_until_signal(app))


async def _until_signal(app: TopApp) -> None:
    """Run the app with signals that leave the terminal as it was."""
    loop = asyncio.get_running_loop()
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    for number in before:
        loop.add_signal_handler(number, app.exit)
    try:
        await app.run_async()
    finally:
        for number, handler in before.items():
            loop.remove_signal_handler(number)
            with contextlib.suppress(TypeError):  # a handler that was not set from Python
                signal.signal(number, handler)
