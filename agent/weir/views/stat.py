# SPDX-License-Identifier: Apache-2.0
"""``weir stat``: golden metrics by workload, pod, process, pair or route."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple, Protocol, TextIO

from weir.errors import ConfigError
from weir.views import units
from weir.views.filters import parse
from weir.views.forms import Readings
from weir.views.layout import Column, lines
from weir.views.requests import RequestRow, percentile
from weir.views.rows import EdgeRow
from weir.views.waiting import later

GROUPS = ("workload", "pod", "process", "pair", "route")
SORTS = ("requests", "failures", "latency", "name")


class Asked(Protocol):
    """Where rows come from (a ``views.source.Source``)."""

    def sample(self) -> tuple[list[EdgeRow], list[RequestRow]]:
        """Pairs and their requests now."""


class Key(NamedTuple):
    """What is shown on one line. ``direction``: ``in`` for what the end serves, ``out`` for what it calls."""

    direction: str
    name: str
    protocol: str


@dataclass
class Golden:
    """Golden signals of one line, of one interval (or since Weir looks)."""

    requests: int = 0
    failures: int = 0
    unknown: int = 0
    durations: Counter[str] = field(default_factory=Counter)
    sent: int = 0
    received: int = 0
    rtts: list[int] = field(default_factory=list)

    @property
    def success(self) -> float | None:
        """Share of the requests that did not fail; None where the protocol is not known."""
        known = self.requests - self.unknown
        return 1 - self.failures / known if known > 0 else None

    def to_json(self, key: Key, seconds: float) -> dict[str, Any]:
        """Plain JSON types; rates are null without an interval."""
        rate = (lambda n: n / seconds) if seconds else (lambda _: None)
        return {
            **key._asdict(),
            "requests": self.requests, "failures": self.failures, "success_rate": self.success,
            "requests_per_second": rate(self.requests), "p50_seconds": percentile(self.durations, 0.50),
            "p95_seconds": percentile(self.durations, 0.95), "p99_seconds": percentile(self.durations, 0.99),
            "sent_bytes_per_second": rate(self.sent), "received_bytes_per_second": rate(self.received),
            "rtt_p50_us": self.rtt,
        }  # fmt: skip

    @property
    def rtt(self) -> int | None:
        """Median of the pairs' medians, microseconds; None without samples."""
        return sorted(self.rtts)[len(self.rtts) // 2] if self.rtts else None


def key_of(edge: EdgeRow, by: str, protocol: str, what: str = "") -> Key:
    """The line that a pair belongs to; ``by`` is one of GROUPS, ``what`` its method and route."""
    serves = edge.role == "destination"
    direction = "in" if serves else "out"
    if by == "pair":
        near, far = _named(edge.namespace, edge.workload), _named(edge.remote_namespace, edge.remote_workload)
        source, destination = (far, near) if serves else (near, far)
        return Key(direction, f"{source} → {destination}:{edge.port}", protocol)
    if by == "route":
        return Key(direction, f"{_named(edge.namespace, edge.workload)} {what}".rstrip(), protocol)
    own = {"workload": edge.workload, "pod": edge.pod, "process": edge.process}[by]
    return Key(direction, own if by == "process" else _named(edge.namespace, own or edge.workload), protocol)


def _named(namespace: str, name: str) -> str:
    return f"{namespace}/{name}" if namespace else name


def golden(
    before: tuple[Sequence[EdgeRow], Sequence[RequestRow]],
    now: tuple[Sequence[EdgeRow], Sequence[RequestRow]],
    by: str,
    match: Callable[[EdgeRow], bool] = lambda _: True,
) -> dict[Key, Golden]:
    """What happened between two samples (an empty first one: since Weir looks)."""
    older = {row.id: row for row in before[1]}
    bytes_before = {row.id: row for row in before[0]}
    edges = {row.id: row for row in now[0] if match(row)}
    found: dict[Key, Golden] = {}
    spoken: dict[str, Counter[Key]] = {}  # requests of a pair by line
    for row in now[1]:
        edge = edges.get(row.edge)
        if edge is None:
            continue
        key = key_of(edge, by, row.protocol, f"{row.method} {row.route}" if row.route else "")
        one = found.setdefault(key, Golden())
        spoken.setdefault(edge.id, Counter())[key] += _add(one, row, older.get(row.id))
    for id_, keys in spoken.items():
        edge, past = edges[id_], bytes_before.get(id_)
        one = found[keys.most_common(1)[0][0]]  # the bytes are of the pair
        one.sent += edge.sent_bytes - (past.sent_bytes if past else 0)
        one.received += edge.received_bytes - (past.received_bytes if past else 0)
        if edge.rtt_p50_us is not None:
            one.rtts.append(round(edge.rtt_p50_us))
    return {key: one for key, one in found.items() if one.requests}


def _add(one: Golden, row: RequestRow, past: RequestRow | None) -> int:
    asked = row.requests - (past.requests if past else 0)
    one.requests += asked
    if row.outcome == "failure":
        one.failures += asked
    elif row.outcome == "unknown":
        one.unknown += asked
    one.durations.update(row.durations)
    if past:
        one.durations.subtract(past.durations)
    return asked


_SORTED: Mapping[str, Callable[[tuple[Key, Golden]], Any]] = {
    "requests": lambda item: (-item[1].requests, item[0]),
    "failures": lambda item: (-item[1].failures, -item[1].requests, item[0]),
    "latency": lambda item: (-(percentile(item[1].durations, 0.99) or 0), item[0]),
    "name": lambda item: (item[0].name, item[0]),
}


def print_stat(
    source: Asked,
    by: str,
    sort: str,
    filter_text: str,
    limit: int,
    form: str,
    interval: float,
    watch: bool,
    out: TextIO,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
    wall: Callable[[], float] = time.time,
) -> None:
    """Write one table (``watch``: one after the other) of what happened in ``interval`` seconds.

    With 0: since Weir looks, without rates. JSON is one object a table, CSV the same rows with ``time``
    before them. ConfigError for a filter that cannot be.
    """
    if by not in GROUPS or sort not in SORTS:
        raise ConfigError(f"stat: --by is one of {', '.join(GROUPS)}, --sort one of {', '.join(SORTS)}")
    match = parse(filter_text)
    nothing: tuple[list[EdgeRow], list[RequestRow]] = ([], [])
    before, began = (source.sample(), clock()) if interval else (nothing, clock())
    readings = Readings(form, out)
    while True:
        now = _later(source, before, interval, clock, sleep) if interval else source.sample()
        seconds = clock() - began if interval else 0.0
        found = sorted(golden(before, now, by, match).items(), key=_SORTED[sort])
        shown = found[:limit]
        about = {"time": wall(), "seconds": seconds, "by": by}
        rows = [one.to_json(key, seconds) for key, one in shown]
        table = partial(lines, _columns(seconds), shown, out, sort)
        readings.tell(about, "rows", rows, len(found), Golden().to_json(Key("", "", ""), 0), table)
        if not watch:
            return
        before, began = now, clock()


def _later(
    source: Asked,
    before: tuple[list[EdgeRow], list[RequestRow]],
    interval: float,
    clock: Callable[[], float],
    sleep: Callable[[float], None],
) -> tuple[list[EdgeRow], list[RequestRow]]:
    """A sample of later; an agent's is the same until its next snapshot."""
    now = before

    def fresh() -> bool:
        nonlocal now
        now = source.sample()
        return now != before

    later(fresh, interval, clock, sleep)
    return now


_Line = tuple[Key, Golden]


def _columns(seconds: float) -> tuple[Column[_Line], ...]:
    """All of them; at 80 columns those that matter most are left."""

    def quantile(q: float) -> Callable[[_Line], str]:
        def cell(line: _Line) -> str:
            took = percentile(line[1].durations, q)
            return units.duration_us(None if took is None else took * 1e6)

        return cell

    def rate(count: int) -> str:
        return units.amount(count / seconds) if seconds else units.NONE

    def success(line: _Line) -> str:
        share = line[1].success
        return units.NONE if share is None else f"{share:.2%}"

    return (
        Column("DIR", 3, 8, lambda r: r[0].direction),
        Column("NAME", 16, 0, lambda r: r[0].name, most=60, sort="name"),
        Column("PROTO", 10, 3, lambda r: r[0].protocol),
        Column("REQUESTS", 9, 7, lambda r: units.count(r[1].requests), right=True, sort="requests"),
        Column("SUCCESS", 8, 1, success, right=True, sort="failures"),
        Column(
            "RPS", 8, 2, lambda r: f"{r[1].requests / seconds:.1f}" if seconds else units.NONE, right=True
        ),
        Column("P50", 7, 5, quantile(0.50), right=True),
        Column("P95", 7, 6, quantile(0.95), right=True),
        Column("P99", 7, 4, quantile(0.99), right=True, sort="latency"),
        Column("TX/s", 7, 10, lambda r: rate(r[1].sent), right=True),
        Column("RX/s", 7, 11, lambda r: rate(r[1].received), right=True),
        Column("RTT", 7, 9, lambda r: units.duration_us(r[1].rtt), right=True),
    )
