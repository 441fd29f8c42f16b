# SPDX-License-Identifier: Apache-2.0
"""Who talks to whom, workload by workload, over some time: samples of rows -> a graph with time series.

Pure: nothing here reads a clock. What it is made into: ``views.page``, whose script is in ``weir/web``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from weir.views.rates import began_within
from weir.views.requests import RequestRow, percentile
from weir.views.rows import EdgeRow

#: Time since a sample where all that rows have counted is wanted.
_ALWAYS = float("inf")
#: Results of requests that are listed of a link.
_RESULTS = 12


class Node(NamedTuple):
    """One end: ``kind`` as in ``views.rows.EdgeRow``."""

    namespace: str
    name: str
    kind: str


class Key(NamedTuple):
    """What is one link: source and destination (who serves), service port, protocol, network."""

    source: Node
    destination: Node
    port: int
    protocol: str
    network: str


@dataclass
class Side:
    """What one end counted of a link; ``sent`` is from source to destination whichever end it was."""

    sent: int = 0
    received: int = 0
    opened: int = 0
    failed: int = 0
    retransmitted: int = 0
    resets: int = 0
    live: int = 0
    requests: int = 0
    failures: int = 0
    unknown: int = 0
    durations: Counter[str] = field(default_factory=Counter)
    results: Counter[str] = field(default_factory=Counter)
    rtts: list[float] = field(default_factory=list)
    #: step -> (bytes both ways, requests, failures)
    steps: dict[int, list[int]] = field(default_factory=dict)

    def step(self, number: int) -> list[int]:
        return self.steps.setdefault(number, [0, 0, 0])


_COUNTS = ("opened", "failed", "retransmitted", "resets")
_NONE = (0,) * len(_COUNTS)


def _counts(row: EdgeRow) -> tuple[int, ...]:
    return row.opened, sum(row.failed.values()), row.retransmitted, row.resets_sent + row.resets_received


def _ways(row: EdgeRow) -> tuple[int, int]:
    """Bytes from source to destination, and back."""
    ways = row.sent_bytes, row.received_bytes
    return (ways[1], ways[0]) if row.role == "destination" else ways


def _new(row: EdgeRow, elapsed: float) -> bool:
    return elapsed == _ALWAYS or began_within(row, elapsed)


class Recorder:
    """Takes samples one after the other; what happened between the first and the last is the picture.

    ``limit`` bounds the links that are shown, by their bytes; the others are counted.
    """

    def __init__(self, limit: int = 1000) -> None:
        self._limit = limit
        self._links: dict[Key, dict[str, Side]] = {}
        self._edges: dict[str, EdgeRow] = {}
        self._requests: dict[str, RequestRow] = {}
        self._times: list[float] = []

    def add(self, edges: Sequence[EdgeRow], requests: Sequence[RequestRow], at: float) -> bool:
        """Take in a sample read at ``at`` (seconds); False where it is the same as before, and left out."""
        now = {row.id: row for row in edges}
        results = {row.id: row for row in requests}
        if self._times:
            if now == self._edges and results == self._requests and now:
                return False
            step = len(self._times) - 1
            elapsed = at - self._times[-1]
            for row in now.values():
                self._count(row, elapsed, step)
            for result in results.values():
                self._count_requests(result, now.get(result.edge), elapsed, step)
        self._times.append(at)
        self._edges, self._requests = now, results
        return True

    def _side(self, row: EdgeRow) -> Side:
        near = Node(row.namespace, row.workload, row.kind)
        far = Node(row.remote_namespace, row.remote_workload, row.remote_kind)
        serves = row.role == "destination"
        ends = (far, near) if serves else (near, far)
        key = Key(*ends, row.port, row.protocol, row.network_name)
        return self._links.setdefault(key, {}).setdefault("destination" if serves else "source", Side())

    def _count(self, row: EdgeRow, elapsed: float, step: int) -> None:
        past = self._edges.get(row.id)
        side = self._side(row)
        if row.rtt_p50_us is not None:
            side.rtts.append(row.rtt_p50_us)
        if past is None and not _new(row, elapsed):
            return
        before = _ways(past) if past else (0, 0)
        sent, received = (max(0, now - then) for now, then in zip(_ways(row), before, strict=True))
        side.sent += sent
        side.received += received
        for name, now, then in zip(_COUNTS, _counts(row), _counts(past) if past else _NONE, strict=True):
            setattr(side, name, getattr(side, name) + max(0, now - then))
        if sent or received:
            side.step(step)[0] += sent + received

    def _count_requests(self, row: RequestRow, edge: EdgeRow | None, elapsed: float, step: int) -> None:
        past = self._requests.get(row.id)
        if edge is None or (past is None and edge.id not in self._edges and not _new(edge, elapsed)):
            return
        asked = row.requests - (past.requests if past else 0)
        if asked <= 0:
            return
        side = self._side(edge)
        side.requests += asked
        side.results[" ".join(filter(None, (row.protocol, row.method, row.route, row.status)))] += asked
        side.durations.update(row.durations)
        if past:
            side.durations.subtract(past.durations)
        at = side.step(step)
        at[1] += asked
        if row.outcome == "failure":
            side.failures += asked
            at[2] += asked
        elif row.outcome == "unknown":
            side.unknown += asked

    @classmethod
    def whole(
        cls, edges: Sequence[EdgeRow], requests: Sequence[RequestRow], limit: int = 1000
    ) -> dict[str, Any]:
        """As :meth:`picture`, of all that was counted so far.

        Each link has its ``durations`` by bucket and all of its ``results``, to take the difference of two.
        """
        recorder = cls(limit)
        recorder.add((), (), -_ALWAYS)
        recorder.add(edges, requests, 0.0)
        told = recorder._told()
        picture = recorder.picture()
        nodes = [Node(**node) for node in picture["nodes"]]
        for link in picture["links"]:
            ends = nodes[link["source"]], nodes[link["destination"]]
            side = told[Key(*ends, link["port"], link["protocol"], link["network"])]
            link["durations"] = {bound: n for bound, n in side.durations.items() if n}
            link["results"] = [*side.results.items()]
        return {**picture, "seconds": []}

    def _told(self) -> dict[Key, Side]:
        """The source's account where both ends tell."""
        return {key: sides.get("source") or sides["destination"] for key, sides in self._links.items()}

    def picture(self) -> dict[str, Any]:
        """Once, at the end. Plain JSON types: ``seconds`` (of each step's end), ``nodes``, ``links``.

        A link has the numbers of ``source`` and ``destination`` (indexes of nodes), counts over the whole
        time, ``p50``, ``p95``, ``p99`` in seconds, and ``steps``: [number, bytes, requests, failures] of
        those in which something happened. Where both ends told of it, it is the source's account.
        """
        for row in self._edges.values():
            self._side(row).live += row.live
        busy = {key: side for key, side in self._told().items() if side.steps or side.failed or side.live}
        order = sorted(busy, key=lambda key: (-(busy[key].sent + busy[key].received), key))
        shown = order[: self._limit]
        nodes: dict[Node, int] = {}
        for key in shown:
            for node in (key.source, key.destination):
                nodes.setdefault(node, len(nodes))
        began = self._times[0] if self._times else 0.0
        return {
            "seconds": [round(at - began, 3) for at in self._times[1:]],
            "nodes": [node._asdict() for node in nodes],
            "links": [_link(key, busy[key], nodes) for key in shown],
            "links_not_shown": len(order) - len(shown),
        }


def _link(key: Key, side: Side, nodes: dict[Node, int]) -> dict[str, Any]:
    rtts = sorted(side.rtts)
    return {
        "source": nodes[key.source], "destination": nodes[key.destination], "port": key.port,
        "protocol": key.protocol, "network": key.network,
        "sent": side.sent, "received": side.received, "opened": side.opened, "live": side.live,
        "failed": side.failed, "retransmitted": side.retransmitted, "resets": side.resets,
        "rtt": rtts[len(rtts) // 2] / 1e6 if rtts else None,
        "requests": side.requests, "failures": side.failures, "unknown": side.unknown,
        "p50": percentile(side.durations, 0.50), "p95": percentile(side.durations, 0.95),
        "p99": percentile(side.durations, 0.99),
        "results": side.results.most_common(_RESULTS),
        "steps": [[number, *at] for number, at in sorted(side.steps.items())],
    }  # fmt: skip
