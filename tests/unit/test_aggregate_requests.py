# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.synthetic import client, drain, identity, request, server, slot
from weir.aggregate import Aggregator, Snapshot
from weir.flows.protocols import words
from weir.kernel.layout import DURATIONS, METHODS, PROTOCOLS


def counts(snapshot: Snapshot) -> dict[tuple[str, ...], int]:
    """Requests by source workload, method and status."""
    sheet = snapshot.requests
    at = [sheet.names.index(n) for n in ("source_workload", "method", "status")]
    found: dict[tuple[str, ...], int] = {}
    for labels, value in zip(sheet.pairs, sheet.values[:, 0].tolist(), strict=True):
        key = tuple(labels[i] for i in at)
        found[key] = found.get(key, 0) + value
    return found


def test_labels_and_sums(tmp_path: Path) -> None:
    aggregator = Aggregator(identity(tmp_path))
    edges = {1: server(), 2: slot("127.0.0.1", "127.0.0.1", 6379, comm="client", netns=7), 3: client()}
    rows = [
        request(1, status=200, seconds=[1.0] * 3), request(1, status=500, seconds=[2.0], untimed=2),
        request(3, method="POST", status=200, seconds=[1.0] * 5), request(2, status=200, seconds=[1.0] * 7),
    ]  # fmt: skip
    snapshot = aggregator.update(drain(edges, requests=rows))
    assert counts(snapshot) == {
        ("client", "GET", "200"): 10, ("client", "GET", "500"): 3, ("client", "POST", "200"): 5,
    }  # fmt: skip
    durations = snapshot.durations
    assert durations.values.shape[1] == DURATIONS + 1
    assert int(durations.values[:, 1:].sum()) == 16
    assert int(durations.values[:, 0].sum()) == (3 + 2 + 5 + 7) * 10**9
    again = aggregator.update(drain(edges, requests=rows))
    assert again.requests.pairs is snapshot.requests.pairs


def test_a_row_taken_again_in_the_same_round(tmp_path: Path) -> None:
    """Row 1 goes with its edge's series; its number is at once that of the row which takes row 2's counts."""
    aggregator = Aggregator(identity(tmp_path))
    edges = {1: server("a", 80), 2: server("b", 81), 3: server("b", 81, netns=9)}
    rows = [request(1, seconds=[1.0] * 100, row=1), request(2, seconds=[1.0] * 10, row=2)]
    assert sum(counts(aggregator.update(drain(edges, requests=rows))).values()) == 110
    aggregator.requests.folded(1, None)
    aggregator.requests.folded(2, 1)
    taken = request(3, seconds=[1.0] * 10, row=1, generation=1)
    del edges[1]
    for _ in range(2):
        snapshot = aggregator.update(drain(edges, requests=[taken]))
        assert sum(counts(snapshot).values()) == 10
        assert int(snapshot.durations.values[:, 1:].sum()) == 10


def test_overflow_and_budget(tmp_path: Path) -> None:
    aggregator = Aggregator(identity(tmp_path), max_series=1000)
    edges = {n: server(f"s{n}", n) for n in range(1, 20)}
    rows = [request(n, status=200 + s, seconds=[1.0], row=20 * n + s) for n in edges for s in range(20)]
    lost = request(0, protocol="", method="", seconds=[1.0] * 7, row=0)
    snapshot = aggregator.update(drain(edges, requests=[lost, *rows]))
    found = counts(snapshot)
    assert sum(found.values()) == 19 * 20 + 7
    assert found["overflow", "", ""] == 7
    assert found["other", "", ""] > 100
    assert snapshot.agent.series <= 1000
    assert snapshot.agent.series_folded > 0
    names = snapshot.requests.names
    for pair in snapshot.requests.pairs:
        labels = dict(zip(names, pair, strict=True))
        if labels["source_workload"] in ("other", "overflow"):
            assert [labels[n] for n in ("protocol", "method", "status", "outcome")] == ["", "", "", "unknown"]


@pytest.mark.parametrize(
    ("protocol", "method", "status", "said"),
    [("http", METHODS.index("GET"), 200, ("GET", "200", "success")),
     ("http", METHODS.index("PUT"), 404, ("PUT", "404", "success")),
     ("http", METHODS.index("_OTHER"), 500, ("_OTHER", "500", "failure")),
     ("http", METHODS.index("GET"), 0, ("GET", "", "failure")),
     ("dns", 28, 1, ("AAAA", "NOERROR", "success")), ("dns", 1, 4, ("A", "NXDOMAIN", "success")),
     ("dns", 65, 3, ("HTTPS", "SERVFAIL", "failure")), ("dns", 0, 6, ("_OTHER", "REFUSED", "failure")),
     ("dns", 1, 16, ("A", "RCODE15", "failure")), ("dns", 1, 0, ("A", "", "failure")),
     ("redis", 2, 1, ("GET", "OK", "success")), ("redis", 1, 2, ("_OTHER", "ERROR", "failure")),
     ("redis", 3, 0, ("SET", "", "failure")),
     ("tcp", 0, 0, ("", "", "unknown"))],
)  # fmt: skip
def test_words(protocol: str, method: int, status: int, said: tuple[str, ...]) -> None:
    assert words(PROTOCOLS.index(protocol), method, status) == (protocol, *said)
