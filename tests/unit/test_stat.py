# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import io
import json
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.unit.synthetic import client, drain, identity, request, server, slot
from weir.aggregate import Aggregator
from weir.errors import ConfigError
from weir.kernel.layout import UDP, duration_bounds
from weir.views.requests import RequestRow, percentile, request_rows
from weir.views.rows import EdgeRow, edge_rows
from weir.views.stat import golden, print_stat

Sample = tuple[list[EdgeRow], list[RequestRow]]


@pytest.fixture
def sample(tmp_path: Path) -> Callable[..., Sample]:
    """Rows of an agent that saw these edges (slot number → row) and request rows."""

    def make(*rows: np.ndarray) -> Sample:
        aggregator = Aggregator(identity(tmp_path))
        edges = {
            1: server(sent_bytes=4000, received_bytes=1000), 2: client(sent_bytes=1000, received_bytes=4000),
            3: slot("10.0.0.1", "10.0.0.2", 53, proto=UDP), 4: server("web", 80),
        }  # fmt: skip
        snapshot = aggregator.update(drain(edges, requests=rows))
        return edge_rows(snapshot), request_rows(snapshot)

    return make


class Script:
    """Samples one after the other."""

    def __init__(self, *samples: Sample) -> None:
        self._samples = list(samples)

    def sample(self) -> Sample:
        return self._samples.pop(0) if len(self._samples) > 1 else self._samples[0]


def test_groups(sample: Callable[..., Sample]) -> None:
    rows = sample(
        request(1, status=200, seconds=[0.001] * 90), request(1, status=500, seconds=[0.1] * 10),
        request(2, status=200, seconds=[0.002] * 100), request(4, protocol="tcp", method="", seconds=[1.0]),
    )  # fmt: skip
    found = golden(([], []), rows, "workload")
    assert {(key.direction, key.name, key.protocol) for key in found} == {
        ("in", "redis-server", "http"), ("out", "client", "http"), ("in", "web", "tcp"),
    }  # fmt: skip
    served = next(one for key, one in found.items() if key.name == "redis-server")
    assert (served.requests, served.failures, served.success) == (100, 10, 0.9)
    assert (served.sent, served.received) == (4000, 1000)
    assert percentile(served.durations, 0.5) == pytest.approx(0.001, rel=0.023)
    assert percentile(served.durations, 0.99) == pytest.approx(0.1, rel=0.023)
    odd = next(one for key, one in found.items() if key.name == "web")
    assert odd.success is None
    pairs = golden(([], []), rows, "pair")
    assert {key.name for key in pairs} >= {"client → redis-server:6379"}
    assert {key.name for key in golden(([], []), rows, "process")} == {"redis-server", "client", "web"}


def test_what_happened_between_two_samples(sample: Callable[..., Sample]) -> None:
    before = sample(request(1, status=200, seconds=[5.0] * 1000))
    now = sample(
        request(1, status=200, seconds=[5.0] * 1000 + [0.01] * 7),
        request(1, status=503, untimed=2, seconds=[]),
    )
    (one,) = golden(before, now, "workload").values()
    assert (one.requests, one.failures) == (9, 2)
    assert percentile(one.durations, 0.99) == pytest.approx(0.01, rel=0.023)
    assert golden(now, now, "workload") == {}


def test_table_and_json(sample: Callable[..., Sample]) -> None:
    before = sample()
    now = sample(request(1, status=200, seconds=[0.004] * 30), request(1, status=500, seconds=[0.004] * 10))
    ticks = iter(range(0, 1000, 10))
    out = io.StringIO()
    print_stat(Script(before, now), "workload", "requests", "", 10, "table", 10, False, out,
               clock=lambda: float(next(ticks)), sleep=lambda _: None)  # fmt: skip
    heading, line = out.getvalue().splitlines()
    assert heading.split()[:6] == ["DIR", "NAME", "PROTO", "REQUESTS▾", "SUCCESS", "RPS"]
    assert line.split()[:5] == ["in", "redis-server", "http", "40", "75.00%"]
    out = io.StringIO()
    print_stat(Script(now), "pair", "failures", "", 10, "json", 0, False, out)
    answer = json.loads(out.getvalue())
    assert (answer["total"], answer["rows"][0]["requests"], answer["rows"][0]["success_rate"]) == (
        1,
        40,
        0.75,
    )
    assert answer["rows"][0]["requests_per_second"] is None
    out = io.StringIO()
    print_stat(Script(now), "pair", "name", "workload:nobody", 10, "json", 0, False, out)
    assert json.loads(out.getvalue())["rows"] == []
    with pytest.raises(ConfigError, match="--by"):
        print_stat(Script(now), "colour", "name", "", 10, "json", 0, False, out)


@pytest.mark.parametrize("seed", range(5))
def test_percentiles_are_within_five_percent(seed: int) -> None:
    chance = random.Random(seed)
    spread = chance.uniform(0.1, 2.5)
    values = [min(60.0, max(2e-6, chance.lognormvariate(-7, spread))) for _ in range(5000)]
    row = request(1, seconds=values)
    durations = {
        str(duration_bounds()[at]): int(row["duration"][at]) for at in np.flatnonzero(row["duration"])
    }
    for q in (0.5, 0.9, 0.95, 0.99, 0.999):
        exact = float(np.quantile(values, q, method="inverted_cdf"))
        assert percentile(durations, q) == pytest.approx(exact, rel=0.023)


def test_a_row_and_back(sample: Callable[..., Sample]) -> None:
    (row,) = sample(request(1, status=404, seconds=[0.1, 0.2]))[1]
    assert RequestRow.from_json(json.loads(json.dumps(row.to_json()))) == row
    assert (row.outcome, row.requests) == ("success", 2)
    assert row.duration_sum_seconds == pytest.approx(0.3)
    with pytest.raises(ValueError, match="requests"):
        RequestRow.from_json({**row.to_json(), "requests": "many"})
