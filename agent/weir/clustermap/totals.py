# SPDX-License-Identifier: Apache-2.0
"""From Prometheus' rates to what the map page asks for: totals that only grow, as an agent's.

A rate knows of counters that began again and of agents that came and went; a sum of counters does not. So
totals are summed here, step by step, from the rates of each step.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from weir.clustermap.client import Point

#: Labels that make a link, besides who reports it.
ENDS = ("source_namespace", "source_workload", "destination_namespace", "destination_workload")
_LINK = (*ENDS, "destination_port", "network_name")
_BY = ", ".join(("reporter", *_LINK))
#: Counts of a link (as ``views.graph``): the counters that make it, and its protocol.
COUNTERS = {
    ("sent", "tcp"): "weir_tcp_sent_bytes_total",
    ("received", "tcp"): "weir_tcp_received_bytes_total",
    ("sent", "udp"): "weir_udp_sent_bytes_total",
    ("received", "udp"): "weir_udp_received_bytes_total",
    ("opened", "tcp"): "weir_tcp_connections_opened_total",
    ("failed", "tcp"): "weir_tcp_connect_failures_total",
    ("retransmitted", "tcp"): "weir_tcp_retransmitted_segments_total",
    ("resets", "tcp"): "weir_tcp_resets_total",
}
COUNTS = (
    "sent",
    "received",
    "opened",
    "failed",
    "retransmitted",
    "resets",
    "requests",
    "failures",
    "unknown",
)
_OUTCOMES = {"failure": "failures", "unknown": "unknown"}
#: Steps of the past that a page begins with, and that are caught up with at most.
MOST_STEPS = 40
#: A bucket is told in so many parts, evenly on a log scale: those that the page's percentiles are read from.
_PARTS = 16
_EXTERNAL = "external"
_MOST_LINKS = 20_000
#: Bound of the last bucket, as ``views.requests`` writes it.
_OPEN = "inf"


class Queried(Protocol):
    """A Prometheus (``client.Client``)."""

    def instant(self, expr: str, at: float) -> list[Point]:
        """The expression at one time."""

    def range(self, expr: str, start: float, end: float, step: float) -> list[Point]:
        """The expression at ``start``, and every ``step`` seconds until ``end``."""


class Key(NamedTuple):
    """A link, as one of its ends reports it."""

    reporter: str
    ends: tuple[str, str, str, str]
    port: str
    network: str
    protocol: str


def _sums() -> defaultdict[str, float]:
    return defaultdict(float)


@dataclass
class Link:
    """Totals of a link, and what each of the last steps (time over step) added to them."""

    counts: defaultdict[str, float] = field(default_factory=_sums)
    results: defaultdict[str, float] = field(default_factory=_sums)
    durations: defaultdict[str, float] = field(default_factory=_sums)
    steps: dict[int, defaultdict[str, float]] = field(default_factory=dict)
    live: int = 0
    rtt: float | None = None
    seen: float = 0.0

    @property
    def moved(self) -> float:
        """Bytes both ways."""
        return self.counts["sent"] + self.counts["received"]


def _key(labels: Mapping[str, str], protocol: str) -> Key:
    namespace, workload, far_namespace, far_workload = (labels.get(name, "") for name in ENDS)
    return Key(labels.get("reporter", ""), (namespace, workload, far_namespace, far_workload),
               labels.get("destination_port", ""), labels.get("network_name", ""), protocol)  # fmt: skip


class Totals:
    """Sums since it began to ask; ``window`` is what a rate looks back, ``step`` how often it is asked.

    Links of which nothing was heard for long are forgotten, and the quietest beyond 20,000.
    """

    def __init__(self, prometheus: Queried, window: float, step: float, limit: int = 1000) -> None:
        self._prometheus, self._window, self._step, self._limit = prometheus, window, step, limit
        self._links: dict[Key, Link] = {}
        self._at: float | None = None

    def advance(self, now: float) -> None:
        """Take in all whole steps until ``now``; at first those of the past.

        WeirError where it cannot be asked: nothing is kept of steps that could not be asked for whole.
        """
        end = math.floor(now / self._step) * self._step
        oldest = end - MOST_STEPS * self._step
        begin = oldest if self._at is None else max(self._at, oldest)
        if end <= begin:
            return
        asked = self._asked(begin, end)
        for link in self._links.values():
            link.live, link.rtt = 0, None
        for take, points in asked:
            take(points)
        self._at = end
        self._forget(end)

    def _forget(self, now: float) -> None:
        oldest = round(now / self._step) - MOST_STEPS
        for link in self._links.values():
            link.steps = {number: counts for number, counts in link.steps.items() if number > oldest}
            if link.live or link.steps:
                link.seen = now
        self._links = {k: v for k, v in self._links.items() if now - v.seen < MOST_STEPS * self._step}
        if len(self._links) > _MOST_LINKS:
            most = sorted(self._links, key=lambda key: self._links[key].moved, reverse=True)[:_MOST_LINKS]
            self._links = {key: self._links[key] for key in most}

    def _asked(self, begin: float, end: float) -> list[tuple[Any, list[Point]]]:
        """All answers first: a half of them must change nothing."""
        window, start = f"{self._window:g}s", begin + self._step
        ask = self._prometheus
        found: list[tuple[Any, list[Point]]] = []
        for (count, protocol), name in COUNTERS.items():
            expr = f"sum by ({_BY}) (rate({name}[{window}]))"
            points = ask.range(expr, start, end, self._step)
            found.append((lambda p, c=count, t=protocol: self._counted(p, c, t), points))
        detail = f"{_BY}, protocol, method, status, outcome"
        requests = f"sum by ({detail}) (rate(weir_requests_total[{window}]))"
        found.append((self._requested, ask.range(requests, start, end, self._step)))
        span = f"{max(self._window, end - begin):g}s"
        for name, by in (("_bucket", f"{_BY}, protocol, le"), ("", f"{_BY}, protocol")):
            expr = f"sum by ({by}) (rate(weir_request_duration_seconds{name}[{span}]))"
            points = ask.instant(expr, end)
            found.append((lambda p, s=end - begin: self._took(p, s), points))
        found.append((self._lives, ask.instant(f"sum by ({_BY}) (weir_tcp_connections)", end)))
        for name, by in (("_bucket", f"{_BY}, le"), ("", _BY)):
            inner = f"sum by ({by}) (rate(weir_tcp_rtt_seconds{name}[{window}]))"
            found.append((self._round_trips, ask.instant(f"histogram_quantile(0.5, {inner})", end)))
        return found

    def _link(self, labels: Mapping[str, str], protocol: str) -> Link:
        return self._links.setdefault(_key(labels, protocol), Link())

    def _add(self, link: Link, at: float, count: str, value: float) -> None:
        link.counts[count] += value
        if value:
            number = round(at / self._step)
            link.steps.setdefault(number, _sums())[count] += value

    def _counted(self, points: Iterable[Point], count: str, protocol: str) -> None:
        for point in points:
            link = self._link(point.labels, protocol)
            for at, rate in point.values:
                self._add(link, at, count, rate * self._step)

    def _requested(self, points: Iterable[Point]) -> None:
        for point in points:
            link = self._link(point.labels, self._transport(point.labels))
            outcome = _OUTCOMES.get(point.labels.get("outcome", ""))
            name = " ".join(
                filter(None, (point.labels.get(part) for part in ("protocol", "method", "status")))
            )
            for at, rate in point.values:
                asked = rate * self._step
                self._add(link, at, "requests", asked)
                if outcome:
                    self._add(link, at, outcome, asked)
                link.results[name] += asked

    def _transport(self, labels: Mapping[str, str]) -> str:
        """Of a link's requests: DNS may be on both, and goes where the link has bytes."""
        if labels.get("protocol") != "dns":
            return "tcp"
        return "udp" if _key(labels, "udp") in self._links else "tcp"

    def _took(self, points: Iterable[Point], seconds: float) -> None:
        classic: dict[tuple[tuple[str, str], ...], list[tuple[float, float]]] = {}
        for point in points:
            link = self._link(point.labels, self._transport(point.labels))
            for _, buckets in point.histograms:
                for upper, rate in buckets.items():
                    link.durations[_OPEN if upper == "+Inf" else upper] += rate * seconds
            if "le" in point.labels and point.values:
                labels = {name: value for name, value in point.labels.items() if name != "le"}
                bound = float(point.labels["le"].replace("Inf", "inf"))
                classic.setdefault(tuple(sorted(labels.items())), []).append((bound, point.values[-1][1]))
        for found, rows in classic.items():
            labels = dict(found)
            link = self._link(labels, self._transport(labels))
            for part, rate in parted(sorted(rows)):
                link.durations[part] += rate * seconds

    def _lives(self, points: Iterable[Point]) -> None:
        for point in points:
            self._link(point.labels, "tcp").live = round(point.values[-1][1])

    def _round_trips(self, points: Iterable[Point]) -> None:
        for point in points:
            if point.values and math.isfinite(point.values[-1][1]):
                self._link(point.labels, "tcp").rtt = point.values[-1][1]

    def picture(self, *, history: bool = False) -> dict[str, Any]:
        """What ``/api/v1/graph`` has (``views.graph``), each pair by the reporter that saw more of it.

        With ``history`` also what each of the last steps added: ``{"seconds": of a step, "steps": [[[number
        of the link, *COUNTS], …], …]}``.
        """
        chosen = self._chosen()
        busy = {key: link for key, link in chosen.items() if link.live or link.counts["failed"] or link.moved}
        order = sorted(busy, key=lambda key: (-busy[key].moved, key))
        shown = order[: self._limit]
        nodes: dict[tuple[str, str], int] = {}
        links = [_told(key, busy[key], nodes) for key in shown]
        named = [{"namespace": namespace, "name": name, "kind": _kind(name)} for namespace, name in nodes]
        made: dict[str, Any] = {
            "time": self._at or 0.0, "seconds": [], "losses": {}, "links_not_shown": len(order) - len(shown),
            "nodes": named,
            "links": links,
        }  # fmt: skip
        if history:
            steps: list[list[list[float]]] = [[] for _ in range(MOST_STEPS)]
            first = round((self._at or 0.0) / self._step) - MOST_STEPS + 1
            for number, key in enumerate(shown):
                for step, counts in busy[key].steps.items():
                    steps[step - first].append([number, *(_short(counts[count]) for count in COUNTS)])
            made["history"] = {"seconds": self._step, "steps": steps}
        return made

    def _chosen(self) -> dict[Key, Link]:
        """Each pair by one of its reporters: they may know different ports of it."""
        seen: dict[tuple[Any, ...], defaultdict[str, float]] = {}
        for key, link in self._links.items():
            by = seen.setdefault((key.ends, key.network, key.protocol), _sums())
            by[key.reporter] += link.moved + link.counts["failed"]
        best = {pair: max(by, key=lambda name, by=by: (by[name], name == "source"))  # type: ignore[misc]
                for pair, by in seen.items()}  # fmt: skip
        return {
            key: link
            for key, link in self._links.items()
            if best[key.ends, key.network, key.protocol] == key.reporter
        }


def parted(rows: list[tuple[float, float]]) -> Iterable[tuple[str, float]]:
    """Cumulative classic buckets (bound, value) as narrow ones (bound, value), evenly on a log scale."""
    before, below = 0.0, 0.0
    for bound, value in rows:
        count, low = max(0.0, value - before), below or bound / 2
        before, below = max(before, value), bound
        if not count:
            continue
        if math.isinf(bound):
            yield _OPEN, count
            continue
        for part in range(1, _PARTS + 1):
            yield f"{low * (bound / low) ** (part / _PARTS):.6g}", count / _PARTS


def _kind(name: str) -> str:
    return _EXTERNAL if name == _EXTERNAL else "workload"


def _short(value: float) -> float:
    return round(value, 3)


def _told(key: Key, link: Link, nodes: dict[tuple[str, str], int]) -> dict[str, Any]:
    source, destination = (nodes.setdefault(end, len(nodes)) for end in (key.ends[:2], key.ends[2:]))
    return {
        "source": source, "destination": destination, "port": int(key.port or 0), "protocol": key.protocol,
        "network": key.network, **{count: _short(link.counts[count]) for count in COUNTS}, "live": link.live,
        "rtt": link.rtt, "p50": None, "p95": None, "p99": None, "steps": [],
        "durations": {bound: _short(count) for bound, count in link.durations.items() if count},
        "results": [[name, _short(link.results[name])]
                    for name in sorted(link.results, key=link.results.__getitem__, reverse=True)],
    }  # fmt: skip
