# SPDX-License-Identifier: Apache-2.0
"""Columns of the table, and which of them fit a width."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rich.cells import cell_len

from weir.views import units
from weir.views.cells import fitted, fitted_end, safe
from weir.views.rates import Rated, Row, live, port, rtt_us
from weir.views.rows import ConnectionRow, EdgeRow
from weir.views.service_names import ServiceNames

EDGES, CONNECTIONS = "edges", "connections"
VIEWS = (EDGES, CONNECTIONS)

_ARROWS = {"source": "→", "destination": "←"}
_SHORT = {"ESTABLISHED": "ESTAB"}  # as ss writes it
GAP = 1


@dataclass(frozen=True)
class Column:
    """One column: ``width`` is the least it needs, ``most`` what it can make use of (cells).

    ``rank`` says which goes first when there is no room: the highest. ``sort`` is the sort key that
    orders by it.
    """

    title: str
    width: int
    rank: int
    text: Callable[[Rated], str]
    most: int = 0
    right: bool = False
    #: An address: cut in the middle.
    middle: bool = False
    sort: str = ""

    def cell(self, rated: Rated, width: int) -> str:
        """Text of exactly ``width`` cells."""
        text = self.text(rated)
        return fitted_end(text, width) if self.middle else fitted(text, width, self.right)

    def heading(self, width: int, sort: str = "") -> str:
        """Title of exactly ``width`` cells, marked if the table is sorted by it."""
        mark = "▾" if sort and sort == self.sort else ""
        return fitted(self.title + mark, width, self.right)


@dataclass(frozen=True)
class Layout:
    """Columns with their widths; one blank between two."""

    columns: tuple[Column, ...]
    widths: tuple[int, ...]

    def heading(self, sort: str = "") -> str:
        """The line above the rows."""
        return self._line([c.heading(w, sort) for c, w in zip(self.columns, self.widths, strict=True)])

    def line(self, rated: Rated) -> str:
        """One row."""
        return self._line([c.cell(rated, w) for c, w in zip(self.columns, self.widths, strict=True)])

    @staticmethod
    def _line(cells: Sequence[str]) -> str:
        return (" " * GAP).join(cells).rstrip()


def columns_of(view: str, services: ServiceNames) -> tuple[Column, ...]:
    """All columns of a view, from left to right."""
    pairs = view == EDGES
    middle = (
        Column("LIVE", 5, 5, lambda r: units.count(live(r.row)), right=True)
        if pairs
        else Column("STATE", 10, 5, lambda r: _state(r.row))
    )
    return (
        Column("NAME", 12 if pairs else 10, 0, lambda r: r.row.workload, most=28, sort="name"),
        Column("PROCESS", 14, 15, lambda r: r.row.process, most=15),
        Column("PID", 7, 12, lambda r: str(r.row.pid or ""), right=True),
        Column("LOCAL", 11 if pairs else 15, 8, lambda r: _local(r.row), most=39, middle=True),
        Column("REMOTE", 17 if pairs else 23, 1, lambda r: _remote(r.row), most=41, middle=True),
        *([Column("PEER", 10, 14, lambda r: _peer(r.row), most=20)] if pairs else []),
        Column("SERVICE", 9, 4, lambda r: services.text(port(r.row), r.row.protocol), most=16),
        Column("PROT", 4, 7, lambda r: r.row.protocol),
        middle,
        Column("TX/s", 7, 2, lambda r: units.amount(r.tx), right=True, sort="rate"),
        Column("RX/s", 7, 3, lambda r: units.amount(r.rx), right=True, sort="rate"),
        Column("TX", 7, 9, lambda r: units.amount(r.row.sent_bytes), right=True, sort="total"),
        Column("RX", 7, 10, lambda r: units.amount(r.row.received_bytes), right=True, sort="total"),
        Column("RTT", 7, 6, lambda r: units.duration_us(rtt_us(r.row)), right=True, sort="latency"),
        Column("RETR", 5, 11, lambda r: units.count(r.row.retransmitted), right=True),
    )


def laid_out(columns: Sequence[Column], width: int) -> Layout:
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


def natural(columns: Sequence[Column], rows: Sequence[Rated]) -> Layout:
    """All columns, each as wide as its longest text: for pipes and files."""
    widths = [max([cell_len(c.title) + 1, *(cell_len(safe(c.text(r))) for r in rows)]) for c in columns]
    return Layout(tuple(columns), tuple(widths))


def _needed(columns: Sequence[Column]) -> int:
    return sum(c.width for c in columns) + GAP * (len(columns) - 1)


def _state(row: Row) -> str:
    state = row.state if isinstance(row, ConnectionRow) else ""
    return _SHORT.get(state, state)


def _local(row: Row) -> str:
    if isinstance(row, EdgeRow):
        return row.local_address
    return endpoint(row.local_address, row.local_port)


def _remote(row: Row) -> str:
    far = row.remote_address if isinstance(row, EdgeRow) else endpoint(row.remote_address, row.remote_port)
    return f"{_ARROWS.get(row.role, ' ')} {far}"


def _peer(row: Row) -> str:
    return row.remote_workload if isinstance(row, EdgeRow) else ""


def endpoint(address: str, number: int) -> str:
    """Address and port, IPv6 in brackets."""
    return f"[{address}]:{number}" if ":" in address else f"{address}:{number}"
