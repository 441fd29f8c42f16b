# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import replace
from typing import Any

import pytest
from textual.pilot import Pilot
from textual.widgets import Input, Static

from tests.unit.test_views_rows import connection, edge
from weir.errors import ConfigError, WeirError
from weir.views.grid import Grid
from weir.views.rows import ConnectionRow, EdgeRow
from weir.views.top import SHOWN, HelpScreen, TopApp, run_top

NAMES = ("ant", "bee", "cat", "dog", "eel")


class Made:
    """A source under the test's hand: what it gives changes only when the test says so."""

    def __init__(self) -> None:
        self.pairs = [
            edge(name, workload=name, process=name, sent_bytes=1000 * n, port=80 + n, rtt_p50_us=n * 10.0)
            for n, name in enumerate(NAMES)
        ]
        self.sockets = [connection(f"c{n}", workload=f"sock{n}", pid=n) for n in range(3)]
        self.lost: dict[str, int] = {}
        self.problem = ""
        self.reads = 0

    def edges(self) -> list[EdgeRow]:
        self.reads += 1
        if self.problem:
            raise WeirError(self.problem)
        return list(self.pairs)

    def connections(self) -> list[ConnectionRow]:
        return list(self.sockets)

    def losses(self) -> Mapping[str, int]:
        return self.lost

    def describe(self) -> str:
        return "made up"

    def close(self) -> None:
        pass

    def move(self, **sent: int) -> None:
        """A second later: these pairs sent so many bytes more."""
        self.pairs = [
            replace(
                row, sent_bytes=row.sent_bytes + sent.get(row.id, 0), age_seconds=(row.age_seconds or 0) + 1
            )
            for row in self.pairs
        ]


class Screen:
    """What a user sees and does."""

    def __init__(self, app: TopApp, pilot: Pilot[None]) -> None:
        self.app, self.pilot = app, pilot

    async def press(self, *keys: str) -> None:
        await self.pilot.press(*keys)
        await self.settle()

    async def tick(self) -> None:
        self.app._tick()
        await self.settle()

    async def settle(self) -> None:
        await self.app.workers.wait_for_complete()
        await self.pilot.pause()

    @property
    def grid(self) -> Grid:
        return self.app.screen_stack[0].query_one(Grid)

    def column(self, title: str) -> list[str]:
        titles = [column.label.plain.strip().rstrip("▾") for column in self.grid.ordered_columns]
        at = titles.index(title)
        return [self.grid.get_row_at(n)[at].plain.strip() for n in range(self.grid.row_count)]

    def titles(self) -> list[str]:
        return [column.label.plain.strip() for column in self.grid.ordered_columns]

    def line(self, name: str) -> str:
        return str(self.app.screen_stack[0].query_one(f"#{name}", Static).render())

    def helping(self) -> bool:
        return isinstance(self.app.screen, HelpScreen)

    def under_cursor(self) -> str:
        return self.column("NAME")[self.grid.cursor_row]


def on_screen(
    size: tuple[int, int] = (120, 30), **options: Any
) -> Callable[[Callable[[Screen, Made], Coroutine[Any, Any, None]]], Callable[[], None]]:
    def wrap(test: Callable[[Screen, Made], Coroutine[Any, Any, None]]) -> Callable[[], None]:
        async def run() -> None:
            source = Made()
            app = TopApp(source, 3600, **options)
            async with app.run_test(size=size) as pilot:
                screen = Screen(app, pilot)
                await screen.settle()
                await test(screen, source)

        @functools.wraps(test)
        def sync() -> None:
            asyncio.run(run())

        del sync.__wrapped__  # or pytest looks for its arguments
        return sync

    return wrap


@on_screen()
async def test_pairs_with_rates_most_first(screen: Screen, source: Made) -> None:
    assert set(screen.column("TX/s")) == {"-"}
    source.move(cat=3_000_000, ant=10)
    await screen.tick()
    assert screen.column("NAME")[:2] == ["cat", "ant"]
    assert screen.column("TX/s") == ["3.00 MB", "10 B", "0 B", "0 B", "0 B"]
    assert screen.column("REMOTE")[0] == "→ 203.0.113.9"
    assert "TX 3.00 MB/s" in screen.line("sums")
    assert "5 pairs" in screen.line("sums")
    assert "made up" in screen.line("head")
    assert "lost" not in screen.line("sums")


@on_screen()
async def test_losses_are_shown(screen: Screen, source: Made) -> None:
    source.lost = {"slot_overflow": 12}
    await screen.tick()
    assert "lost: slot_overflow 12" in screen.line("sums")


@on_screen()
async def test_sort_keys(screen: Screen, source: Made) -> None:
    del source
    await screen.press("n")
    assert screen.column("NAME") == list(NAMES)
    assert screen.titles()[0] == "NAME▾"
    await screen.press("t")
    assert screen.column("NAME") == list(NAMES[::-1])
    assert "sort total" in screen.line("status")
    for key, sort in (("s", "latency"), ("greater_than_sign", "name"), ("less_than_sign", "latency")):
        await screen.press(key)
        assert f"sort {sort}" in screen.line("status")
    await screen.press("r")
    assert "sort rate" in screen.line("status")


@on_screen()
async def test_views_toggle(screen: Screen, source: Made) -> None:
    del source
    await screen.press("tab")
    assert screen.column("NAME") == ["sock0", "sock1", "sock2"]
    assert screen.column("STATE") == ["ESTAB"] * 3
    assert "3 connections" in screen.line("sums")
    await screen.press("tab")
    assert len(screen.column("LIVE")) == 5
    await screen.press("c")
    assert "STATE" in screen.titles()
    await screen.press("p")
    assert "LIVE" in screen.titles()


@on_screen(sort="name")
async def test_the_cursor_stays_on_its_row(screen: Screen, source: Made) -> None:
    await screen.press("down", "down")
    assert screen.under_cursor() == "cat"
    source.pairs = source.pairs[::-1]
    source.pairs.append(edge("aaa", workload="aaa"))
    await screen.tick()
    assert (screen.under_cursor(), screen.grid.cursor_row) == ("cat", 3)
    await screen.press("t")
    assert screen.under_cursor() == "cat"
    source.pairs = [row for row in source.pairs if row.id != "cat"]
    before = screen.grid.cursor_row
    await screen.tick()
    assert screen.grid.cursor_row == before
    await screen.press("home", "n")
    assert screen.grid.cursor_row == 0


@on_screen(sort="name")
async def test_a_cursor_that_was_never_moved_stays_on_top(screen: Screen, source: Made) -> None:
    source.pairs.append(edge("aaa", workload="aaa"))
    await screen.tick()
    assert (screen.grid.cursor_row, screen.under_cursor()) == (0, "aaa")


@on_screen()
async def test_cells_that_do_not_change_are_not_written(screen: Screen, source: Made) -> None:
    del source
    await screen.tick()
    before = [screen.grid.get_row_at(n) for n in range(5)]
    await screen.tick()
    after = [screen.grid.get_row_at(n) for n in range(5)]
    assert all(a is b for one, two in zip(before, after, strict=True) for a, b in zip(one, two, strict=True))


@on_screen()
async def test_pause_holds_the_picture(screen: Screen, source: Made) -> None:
    await screen.press("space")
    assert "PAUSED" in screen.line("status")
    assert "resume" in screen.line("keys")
    reads, source.pairs = source.reads, []
    await screen.tick()
    assert (source.reads, screen.grid.row_count) == (reads, 5)
    await screen.press("n")
    assert screen.column("NAME") == list(NAMES)
    await screen.press("space")
    assert "PAUSED" not in screen.line("status")
    assert screen.grid.row_count == 0


@on_screen()
async def test_filter_while_typing(screen: Screen, source: Made) -> None:
    del source
    await screen.press("slash", *"bee")
    assert screen.column("NAME") == ["bee"]
    await screen.press("enter")
    assert not screen.app.query_one("#filter", Input).has_class("open")
    assert "filter bee (1 match)" in screen.line("status")
    await screen.press("slash", *"q")
    assert screen.grid.row_count == 0
    await screen.press("escape")
    assert screen.column("NAME") == ["bee"]
    await screen.press("escape")
    assert screen.grid.row_count == 5


@on_screen(filter_text="!bee")
async def test_a_bad_filter_says_why_and_waits_to_be_mended(screen: Screen, source: Made) -> None:
    del source
    assert "bee" not in screen.column("NAME")
    await screen.press("slash", *" port:x", "enter")
    assert "port:x: a number or a range" in screen.line("status")
    assert screen.app.query_one("#filter", Input).has_class("open")
    await screen.press("escape")
    assert "number" not in screen.line("status")
    assert screen.grid.row_count == 4


@on_screen()
async def test_help(screen: Screen, source: Made) -> None:
    await screen.press("question_mark")
    assert screen.helping()
    source.pairs = []
    await screen.tick()  # goes on behind it
    await screen.press("down")
    assert screen.helping()
    await screen.press("x", "x")
    assert not screen.helping()
    assert screen.grid.row_count == 0


@on_screen(size=(80, 12))
async def test_resize_drops_columns_and_keeps_the_cursor(screen: Screen, source: Made) -> None:
    del source
    await screen.press("n", "down", "down")
    assert screen.titles() == ["NAME▾", "REMOTE", "SERVICE", "PROT", "LIVE", "TX/s", "RX/s", "RTT"]
    for width, missing in ((60, "RTT"), (160, ""), (30, "SERVICE"), (5, "REMOTE"), (120, "PROCESS")):
        await screen.pilot.resize_terminal(width, 12)
        await screen.settle()
        assert missing not in screen.titles()
        assert screen.under_cursor().startswith("cat"[: width - 2])
        assert sum(column.width for column in screen.grid.ordered_columns) <= width
        assert len(screen.line("sums")) <= width
        assert len(screen.line("keys")) <= width


@on_screen()
async def test_an_agent_that_goes_away_is_told_and_the_rows_stay(screen: Screen, source: Made) -> None:
    source.problem = "cannot reach the agent"
    await screen.tick()
    assert "cannot reach the agent" in screen.line("status")
    assert screen.grid.row_count == 5
    source.problem = ""
    await screen.tick()
    assert "cannot" not in screen.line("status")


@on_screen()
async def test_rows_are_bounded_and_the_rest_is_told(screen: Screen, source: Made) -> None:
    source.pairs = [edge(f"{n}", workload=f"w{n:05}") for n in range(SHOWN + 1234)]
    await screen.tick()
    assert screen.grid.row_count == SHOWN
    assert "… and 1,234 more" in screen.line("status")
    source.pairs = source.pairs[:3]
    await screen.tick()
    assert screen.grid.row_count == 3


@on_screen()
async def test_names_are_text_never_markup_nor_escapes(screen: Screen, source: Made) -> None:
    source.pairs = [edge("x", workload="[red]\x1b[2Ja[/]")]
    await screen.tick()
    assert screen.column("NAME") == ["[red]?[2Ja[/]"]


@pytest.mark.parametrize("key", ["q", "ctrl+c"])
def test_quit(key: str) -> None:
    async def run() -> None:
        app = TopApp(Made(), 3600)
        async with app.run_test() as pilot:
            await pilot.press(key)
            await pilot.pause()
            assert not app.is_running

    asyncio.run(run())


def test_it_reads_by_itself_every_interval() -> None:
    async def run() -> None:
        source = Made()
        async with TopApp(source, 0.1).run_test() as pilot:
            while source.reads < 3:
                await pilot.pause(0.05)

    asyncio.run(asyncio.wait_for(run(), 20))


@pytest.mark.parametrize(
    "options", [{"what": "pairs"}, {"sort": "size"}, {"filter_text": "port:x"}], ids=lambda o: next(iter(o))
)
def test_what_cannot_be(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        TopApp(Made(), 1.0, **options)


def test_no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: False, raising=False)
    with pytest.raises(WeirError, match="needs a terminal"):
        run_top(Made(), 1.0)
