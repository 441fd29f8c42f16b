# SPDX-License-Identifier: Apache-2.0
"""A cluster's totals from rates: each pair once, steps of the past, percentiles from classic buckets."""

from __future__ import annotations

import http.server
import math
import threading
from collections.abc import Callable
from typing import Any

import pytest

from weir.clustermap.client import Client, Point, Where
from weir.clustermap.totals import COUNTS, MOST_STEPS, Totals, parted
from weir.errors import ConfigError, WeirError
from weir.views.requests import percentile

ENDS = {"source_namespace": "shop", "source_workload": "web", "destination_namespace": "shop",
        "destination_workload": "api"}  # fmt: skip
STEP, NOW = 15.0, 1_000_000.0 * 15


class Made:
    """A Prometheus under the test's hand: constant rates by metric and labels."""

    def __init__(self) -> None:
        self.rates: list[tuple[str, dict[str, str], float]] = []
        self.broken: Callable[[str], bool] = lambda _: False
        self.asked: list[str] = []

    def add(self, metric: str, rate: float, **labels: str) -> None:
        self.rates.append((metric, {"reporter": "source", **ENDS, "destination_port": "80", **labels}, rate))

    def _found(self, expr: str) -> list[tuple[dict[str, str], float]]:
        self.asked.append(expr)
        if self.broken(expr):
            raise WeirError("gone")
        return [(labels, rate) for metric, labels, rate in self.rates
                if f"({metric}[" in expr or f"({metric})" in expr]  # fmt: skip

    def instant(self, expr: str, at: float) -> list[Point]:
        return [Point(labels, [(at, rate)], []) for labels, rate in self._found(expr)]

    def range(self, expr: str, start: float, end: float, step: float) -> list[Point]:
        times = [start + n * step for n in range(round((end - start) / step) + 1)]
        return [Point(labels, [(at, rate) for at in times], []) for labels, rate in self._found(expr)]


def drawn(made: Made, *times: float, history: bool = False) -> dict[str, Any]:
    totals = Totals(made, 120, STEP)
    for at in times or (NOW,):
        totals.advance(at)
    return totals.picture(history=history)


def test_both_reporters_are_one_pair() -> None:
    """Of whom the one that saw more tells, with its port; the other one's port is no pair of its own."""
    made = Made()
    made.add("weir_tcp_sent_bytes_total", 100)
    made.add("weir_tcp_sent_bytes_total", 90, reporter="destination", destination_port="8080")
    made.add("weir_tcp_received_bytes_total", 10)
    (link,) = drawn(made)["links"]
    assert (link["port"], link["sent"], link["received"]) == (
        80,
        100 * STEP * MOST_STEPS,
        10 * STEP * MOST_STEPS,
    )


def test_totals_grow_by_whole_steps() -> None:
    made = Made()
    made.add("weir_tcp_sent_bytes_total", 100)
    totals = Totals(made, 120, STEP)
    totals.advance(NOW + 3)
    first = totals.picture()
    totals.advance(NOW + 14.9)
    assert totals.picture() == first
    totals.advance(NOW + 46)
    later = totals.picture()
    assert later["links"][0]["sent"] - first["links"][0]["sent"] == 3 * STEP * 100
    assert later["time"] - first["time"] == 45


def test_a_long_pause_is_not_made_up_for() -> None:
    made = Made()
    made.add("weir_tcp_sent_bytes_total", 1)
    assert drawn(made, NOW, NOW + 86_400)["links"][0]["sent"] == 2 * MOST_STEPS * STEP


def test_history_is_the_last_steps() -> None:
    made = Made()
    made.add("weir_tcp_sent_bytes_total", 2)
    history = drawn(made, NOW, NOW + STEP, history=True)["history"]
    assert history["seconds"] == STEP
    assert history["steps"] == [[[0, 2 * STEP, *[0] * (len(COUNTS) - 1)]]] * MOST_STEPS


def test_requests_and_how_they_went() -> None:
    made = Made()
    made.add("weir_tcp_sent_bytes_total", 1)
    asked = {"protocol": "http", "method": "GET"}
    made.add("weir_requests_total", 3, status="200", outcome="success", **asked)
    made.add("weir_requests_total", 1, status="503", outcome="failure", **asked)
    made.add("weir_requests_total", 0.5, status="", outcome="unknown", protocol="tcp", method="")
    (link,) = drawn(made)["links"]
    seconds = STEP * MOST_STEPS
    assert (link["requests"], link["failures"], link["unknown"]) == (4.5 * seconds, seconds, seconds / 2)
    assert link["results"] == [["http GET 200", 3 * seconds], ["http GET 503", seconds], ["tcp", seconds / 2]]


def test_percentiles_of_classic_buckets() -> None:
    """Log-linear within a bucket: a half of 100 between 1 and 2 s is at the middle, on a log scale."""
    narrow = dict(parted([(1.0, 0.0), (2.0, 100.0), (4.0, 100.0), (math.inf, 100.0)]))
    assert sum(narrow.values()) == pytest.approx(100)
    scaled = {bound: round(count * 1000) for bound, count in narrow.items()}
    assert percentile(scaled, 0.5) == pytest.approx(math.sqrt(2), rel=0.05)
    assert percentile(scaled, 0.99) == pytest.approx(2, rel=0.05)


def test_half_an_answer_changes_nothing() -> None:
    made = Made()
    made.add("weir_tcp_sent_bytes_total", 1)
    totals = Totals(made, 120, STEP)
    totals.advance(NOW)
    before = totals.picture(history=True)
    made.broken = lambda expr: "requests_total" in expr
    with pytest.raises(WeirError):
        totals.advance(NOW + STEP)
    assert totals.picture(history=True) == before
    made.broken = lambda _: False
    totals.advance(NOW + 2 * STEP)
    assert totals.picture()["links"][0]["sent"] - before["links"][0]["sent"] == 2 * STEP


def test_what_is_silent_is_forgotten() -> None:
    made = Made()
    made.add("weir_tcp_sent_bytes_total", 1)
    totals = Totals(made, 120, STEP)
    totals.advance(NOW)
    made.rates.clear()
    totals.advance(NOW + STEP * (MOST_STEPS - 1))
    assert len(totals.picture()["links"]) == 1
    totals.advance(NOW + STEP * (2 * MOST_STEPS + 1))
    assert totals.picture()["links"] == []


@pytest.mark.parametrize(("url", "said"), [
    ("ftp://there", "--prometheus ftp://there: an address such as http://127.0.0.1:9090 is needed"),
    ("http://", "an address such as"),
])  # fmt: skip
def test_addresses_that_are_none(url: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        Client(Where(url))


def test_nobody_is_there() -> None:
    with pytest.raises(WeirError, match=r"Prometheus at http://127.0.0.1:1 cannot be reached \(.*refused"):
        Client(Where("http://127.0.0.1:1")).instant("up", 0)


def test_nobody_is_led_elsewhere() -> None:
    """A token is for the server that was named: a redirection is an error, and nobody else hears of it."""
    heard: list[str] = []

    class Sends(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            heard.append(self.path)
            self.send_response(302)
            self.send_header("Location", f"http://127.0.0.1:{self.server.server_port}/elsewhere")  # type: ignore[attr-defined]
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_GET = do_POST  # noqa: N815

        def log_message(self, *_: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Sends)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        with pytest.raises(WeirError, match="HTTP 302"):
            Client(Where(f"http://me:secret@127.0.0.1:{server.server_port}")).instant("up", 0)
    finally:
        server.shutdown()
        server.server_close()
    assert heard == ["/api/v1/query"]


def test_a_password_is_in_no_message() -> None:
    assert Client(Where("http://me:secret@127.0.0.1:1/prom/")).url == "http://127.0.0.1:1/prom"
