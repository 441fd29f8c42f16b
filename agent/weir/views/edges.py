# SPDX-License-Identifier: Apache-2.0
"""``weir edges``: who talks to whom, workload by workload: a table, JSON, CSV, or a drawing by Graphviz."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from functools import partial
from typing import Any, TextIO

from weir.errors import ConfigError
from weir.views import units
from weir.views.filters import Match, parse
from weir.views.forms import DOT, Readings
from weir.views.graph import Recorder
from weir.views.layout import Column, lines
from weir.views.report import Sampled
from weir.views.requests import RequestRow
from weir.views.rows import EdgeRow
from weir.views.waiting import later

SORTS = ("traffic", "requests", "failures", "latency", "name")
#: Okabe and Ito's, which people with any colour vision can tell apart; what they say is in the label too.
_WELL, _BAD = "#0072B2", "#D55E00"
_MOST = 10_000


@dataclass(frozen=True)
class Edge:
    """One line. Keys are only added; every key is there in every one.

    ============================= ======= ============================================================
    key                           unit    meaning
    ============================= ======= ============================================================
    source_*, destination_*               who called whom; kinds as in ``views.rows.EdgeRow``
    port, protocol, network_name          where it was called, tcp or udp, over which network
    sent_bytes, received_bytes    bytes   from source to destination, and back
    live, opened, connect_failures        TCP connections: now, opened, that did not get through
    retransmitted, resets                 TCP
    requests, failures                    of parsed and of other protocols
    success_rate                          null where no outcome is known
    p50_, p95_, p99_seconds       s       of requests, as the source saw them (else the destination)
    rtt_seconds                   s       median of the kernel's smoothed RTT
    *_per_second                          null without an interval
    ============================= ======= ============================================================
    """

    source_namespace: str
    source_workload: str
    source_kind: str
    destination_namespace: str
    destination_workload: str
    destination_kind: str
    port: int
    protocol: str
    network_name: str
    sent_bytes: int
    received_bytes: int
    live: int
    opened: int
    connect_failures: int
    retransmitted: int
    resets: int
    requests: int
    failures: int
    success_rate: float | None
    p50_seconds: float | None
    p95_seconds: float | None
    p99_seconds: float | None
    rtt_seconds: float | None
    sent_bytes_per_second: float | None
    received_bytes_per_second: float | None
    requests_per_second: float | None

    @property
    def source(self) -> str:
        """Namespace and name."""
        return _named(self.source_namespace, self.source_workload)

    @property
    def destination(self) -> str:
        """Namespace and name."""
        return _named(self.destination_namespace, self.destination_workload)


def _named(namespace: str, name: str) -> str:
    return f"{namespace}/{name}" if namespace else name


#: Counts of a link (``views.graph``) under the names that they have here.
_SAME = {
    "port": "port", "protocol": "protocol", "network_name": "network", "sent_bytes": "sent",
    "received_bytes": "received", "live": "live", "opened": "opened", "connect_failures": "failed",
    "retransmitted": "retransmitted", "resets": "resets", "requests": "requests", "failures": "failures",
    "p50_seconds": "p50", "p95_seconds": "p95", "p99_seconds": "p99", "rtt_seconds": "rtt",
}  # fmt: skip
_RATES = {"sent_bytes_per_second": "sent", "received_bytes_per_second": "received",
          "requests_per_second": "requests"}  # fmt: skip


def edges_of(picture: dict[str, Any], seconds: float) -> list[Edge]:
    """Of a picture of ``views.graph`` that took so many seconds (0: all that was ever counted)."""
    found = []
    for link in picture["links"]:
        values: dict[str, Any] = {name: link[theirs] for name, theirs in _SAME.items()}
        values |= {name: link[theirs] / seconds if seconds else None for name, theirs in _RATES.items()}
        for end in ("source", "destination"):
            node = picture["nodes"][link[end]]
            names = {"namespace": "namespace", "workload": "name", "kind": "kind"}
            values |= {f"{end}_{name}": node[theirs] for name, theirs in names.items()}
        known = link["requests"] - link["unknown"]
        values["success_rate"] = 1 - link["failures"] / known if known > 0 else None
        found.append(Edge(**values))
    return found


_SORTED: dict[str, Callable[[Edge], Any]] = {
    "traffic": lambda e: -(e.sent_bytes + e.received_bytes),
    "requests": lambda e: -e.requests,
    "failures": lambda e: (-(e.failures + e.connect_failures), -e.requests),
    "latency": lambda e: -(e.p99_seconds or 0),
    "name": lambda _: 0,
}


def ordered(edges: Iterable[Edge], sort: str) -> list[Edge]:
    """By one of SORTS, most first; names break ties."""
    key = _SORTED[sort]
    return sorted(
        edges, key=lambda e: (key(e), e.source.lower(), e.destination.lower(), e.port, e.network_name)
    )


def columns(seconds: float) -> tuple[Column[Edge], ...]:
    """All of them; at 80 columns those that matter most are left."""

    def amount(count: int) -> str:
        return units.amount(count / seconds if seconds else count)

    per = "/s" if seconds else ""
    return (
        Column("FROM", 14, 0, lambda e: e.source, most=40, sort="name"),
        Column("TO", 14, 1, lambda e: f"→ {e.destination}", most=42),
        Column("PORT", 5, 2, lambda e: str(e.port), right=True),
        Column("PROT", 4, 9, lambda e: e.protocol),
        Column("NETWORK", 10, 12, lambda e: e.network_name or units.NONE, most=24),
        Column("LIVE", 5, 10, lambda e: units.count(e.live), right=True),
        Column(f"TX{per}", 7, 3, lambda e: amount(e.sent_bytes), right=True, sort="traffic"),
        Column(f"RX{per}", 7, 4, lambda e: amount(e.received_bytes), right=True),
        Column(
            "RPS" if seconds else "REQUESTS", 8, 7, lambda e: _asked(e, seconds), right=True, sort="requests"
        ),
        Column("SUCCESS", 8, 5, _how, right=True, sort="failures"),
        Column("P99", 7, 6, lambda e: _took(e.p99_seconds), right=True, sort="latency"),
        Column("RTT", 7, 8, lambda e: _took(e.rtt_seconds), right=True),
        Column("FAIL", 5, 11, lambda e: units.count(e.connect_failures), right=True),
        Column("RETR", 5, 13, lambda e: units.count(e.retransmitted), right=True),
    )


def _asked(edge: Edge, seconds: float) -> str:
    if not edge.requests:
        return units.NONE
    return f"{edge.requests / seconds:.1f}" if seconds else units.count(edge.requests)


def _success(edge: Edge) -> str:
    return units.NONE if edge.success_rate is None else f"{edge.success_rate:.2%}"


def _how(edge: Edge) -> str:
    """Of requests; where there are none, whether connections came about."""
    if edge.success_rate is None and edge.connect_failures:
        return f"{units.count(edge.connect_failures)} fail"
    return _success(edge)


def _took(seconds: float | None) -> str:
    return units.duration_us(None if seconds is None else seconds * 1e6)


def dot(edges: Sequence[Edge], seconds: float) -> str:
    """A directed graph in Graphviz's language: ``weir edges --dot | dot -Tsvg``."""
    text = ["digraph weir {", "  rankdir=LR;", '  node [shape=box, style=rounded, fontname="sans-serif"];',
            '  edge [fontname="sans-serif", fontsize=10];']  # fmt: skip
    names = sorted({name for edge in edges for name in (edge.source, edge.destination)})
    ids = {name: f"n{number}" for number, name in enumerate(names)}
    text += [f"  {ids[name]} [label={_quoted(name)}];" for name in names]
    most = max((e.sent_bytes + e.received_bytes for e in edges), default=0) or 1
    for edge in edges:
        moved = edge.sent_bytes + edge.received_bytes
        bad = edge.failures or edge.connect_failures
        look = f'color="{_BAD if bad else _WELL}", style={"dashed" if bad else "solid"}'
        look += f", penwidth={1 + 4 * moved / most:.1f}"
        ends = f"{ids[edge.source]} -> {ids[edge.destination]}"
        text.append(f"  {ends} [label={_quoted(*_said(edge, moved, seconds))}, {look}];")
    return "\n".join([*text, "}"]) + "\n"


def _said(edge: Edge, moved: int, seconds: float) -> Iterator[str]:
    yield f"{edge.protocol} {edge.port}"
    yield f"{units.amount(moved / seconds)}/s" if seconds else units.amount(moved)
    if edge.network_name:
        yield edge.network_name
    if edge.success_rate is not None:
        yield f"{_success(edge)} of {units.count(edge.requests)}"
    if edge.connect_failures:
        yield f"{edge.connect_failures} connects failed"


def _quoted(*parts: str) -> str:
    """One string of Graphviz's: what names could say to it (line breaks, escapes) is taken from them."""
    plain = ["".join(c if c.isprintable() else "?" for c in part) for part in parts]
    return '"' + "\\n".join(part.replace("\\", "\\\\").replace('"', '\\"') for part in plain) + '"'


def print_edges(
    source: Sampled,
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
    """Write what happened in ``interval`` seconds (0: all that was counted); ``watch``: again and again.

    JSON: ``{"time", "seconds", "edges": [rows], "total", "truncated"}``. ConfigError for a sort key or a
    filter that cannot be.
    """
    if sort not in SORTS:
        raise ConfigError(f"sort {sort!r}: choose from {', '.join(SORTS)}")
    match = parse(filter_text)
    readings = Readings(form, out)
    names = [field.name for field in fields(Edge)]
    before: _Sample | None = (*_matched(source, match), clock()) if interval else None
    while True:
        picture, seconds, before = _later(source, match, before, interval, clock, sleep)
        found = ordered(edges_of(picture, seconds), sort)
        shown, total = found[:limit], len(found) + picture["links_not_shown"]
        if form == DOT:
            out.write(dot(shown, seconds))
            out.flush()
        else:
            about = {"time": wall(), "seconds": seconds}
            table = partial(lines, columns(seconds), shown, out, sort)
            readings.tell(about, "edges", [asdict(e) for e in shown], total, names, table)
        if not watch:
            return


_Sample = tuple[list[EdgeRow], list[RequestRow], float]


def _matched(source: Sampled, match: Match) -> tuple[list[EdgeRow], list[RequestRow]]:
    edges, requests = source.sample()
    return [row for row in edges if match(row)], list(requests)


def _later(
    source: Sampled,
    match: Match,
    before: _Sample | None,
    interval: float,
    clock: Callable[[], float],
    sleep: Callable[[float], None],
) -> tuple[dict[str, Any], float, _Sample | None]:
    """The picture between a sample and a later one, and that; an agent's next one may take its time."""
    if before is None:
        return Recorder.whole(*_matched(source, match), _MOST), 0.0, None
    recorder = Recorder(_MOST)
    recorder.add(*before)
    now = before

    def fresh() -> bool:
        nonlocal now
        now = (*_matched(source, match), clock())
        return recorder.add(*now)

    later(fresh, interval, clock, sleep)
    return recorder.picture(), now[2] - before[2], now
