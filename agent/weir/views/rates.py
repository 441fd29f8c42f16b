# SPDX-License-Identifier: Apache-2.0
"""From successive lists of rows to rates, totals and an order. Pure: nothing here reads a clock."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from weir.views.rows import ConnectionRow, EdgeRow

Row = EdgeRow | ConnectionRow

#: A row that is new to us but this much older than the last sample was only not listed before.
_LATE = 1.5
#: Ages closer than this (seconds) are one and the same sample.
_SAME = 1e-4


@dataclass(frozen=True)
class Rated:
    """A row with the bytes per second of its local end; None as long as there is one sample only."""

    row: Row
    tx: float | None = None
    rx: float | None = None

    @property
    def rate(self) -> float:
        """Both directions, bytes per second; 0 if not known."""
        return (self.tx or 0.0) + (self.rx or 0.0)


@dataclass(frozen=True)
class Totals:
    """Sums of rows: bytes per second (None: no rate known yet), bytes, rows, live TCP connections."""

    tx: float | None
    rx: float | None
    sent_bytes: int
    received_bytes: int
    rows: int
    live: int


class Rates:
    """Remembers the last sample only, so it is bounded by the size of one list of rows."""

    def __init__(self) -> None:
        self._by_id: dict[str, Rated] = {}
        self._at: float | None = None
        self.fresh = False

    def update(self, rows: Sequence[Row], now: float) -> list[Rated]:
        """Rates of a sample that was read at ``now`` (seconds of any steady clock).

        How much time lies between two samples is told by the rows' own age, because an agent may give
        the same snapshot twice: its rates are then those from before, and ``fresh`` is False.
        """
        rows = _distinct(rows)
        elapsed = 0.0 if self._at is None else self._elapsed(rows, now - self._at)
        self.fresh = elapsed >= _SAME
        rated = [self._rate(row, elapsed) if self.fresh else self._kept(row) for row in rows]
        self._by_id = {r.row.id: r for r in rated}
        self._at = now
        return rated

    def _elapsed(self, rows: Sequence[Row], clock: float) -> float:
        steps = [
            row.age_seconds - before.row.age_seconds
            for row in rows
            if row.age_seconds is not None
            and (before := self._by_id.get(row.id)) is not None
            and before.row.age_seconds is not None
        ]
        return max(steps, default=clock)

    def _kept(self, row: Row) -> Rated:
        before = self._by_id.get(row.id)
        return Rated(row) if before is None else Rated(row, before.tx, before.rx)

    def _rate(self, row: Row, elapsed: float) -> Rated:
        before = self._by_id.get(row.id)
        if before is not None:
            sent, received = before.row.sent_bytes, before.row.received_bytes
        elif not began_within(row, elapsed):
            return Rated(row)
        else:
            sent = received = 0
        return Rated(
            row,
            max(0, row.sent_bytes - sent) / elapsed,
            max(0, row.received_bytes - received) / elapsed,
        )


def began_within(row: Row, elapsed: float) -> bool:
    """Whether a row that the sample before had not, so many seconds ago, has counted nothing before it."""
    return row.age_seconds is not None and row.age_seconds <= elapsed * _LATE


def _distinct(rows: Sequence[Row]) -> list[Row]:
    """Ids are keys of the table: one that comes twice gets a number."""
    seen: dict[str, int] = {}
    out: list[Row] = []
    for row in rows:
        again = seen[row.id] = seen.get(row.id, 0) + 1
        out.append(row if again == 1 else replace(row, id=f"{row.id}#{again}"))
    return out


def totals(rated: Iterable[Rated]) -> Totals:
    """Sums of the rows."""
    rows = list(rated)
    known = [r for r in rows if r.tx is not None]
    return Totals(
        sum(r.tx or 0.0 for r in known) if known or not rows else None,
        sum(r.rx or 0.0 for r in known) if known or not rows else None,
        sum(r.row.sent_bytes for r in rows),
        sum(r.row.received_bytes for r in rows),
        len(rows),
        sum(live(r.row) for r in rows),
    )


def live(row: Row) -> int:
    """Established TCP connections of a row."""
    return row.live if isinstance(row, EdgeRow) else int(row.state == "ESTABLISHED")


def rtt_us(row: Row) -> float | None:
    """RTT to show: the median of a pair, the smoothed one of a connection."""
    return row.rtt_p50_us if isinstance(row, EdgeRow) else row.rtt_us


def port(row: Row) -> int:
    """Service port."""
    return row.port if isinstance(row, EdgeRow) else row.service_port


def _bytes(rated: Rated) -> int:
    return rated.row.sent_bytes + rated.row.received_bytes


_Key = Callable[[Rated], tuple[float, ...]]
#: Sort name -> what comes first has the smallest key. Ties are broken by name, so rows stay put.
_SORTS: dict[str, _Key] = {
    "rate": lambda r: (-r.rate, -_bytes(r)),
    "total": lambda r: (-_bytes(r),),
    "latency": lambda r: (-(rtt_us(r.row) or -1.0),),
    "name": lambda _: (),
}
SORTS = tuple(_SORTS)


def ordered(rated: Iterable[Rated], sort: str) -> list[Rated]:
    """Sort by one of :data:`SORTS`: most first, names from a to z. KeyError for another name."""
    key = _SORTS[sort]
    return sorted(rated, key=lambda r: (key(r), r.row.workload.lower(), r.row.remote_address, port(r.row),
                                        r.row.id))  # fmt: skip
