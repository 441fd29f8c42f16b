# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import io
import json
from collections.abc import Sequence
from typing import TextIO

import pytest

from tests.unit.test_views_rows import connection, edge
from weir.errors import ConfigError
from weir.views.once import print_once
from weir.views.rows import ConnectionRow, EdgeRow
from weir.views.service_names import ServiceNames

SERVICES = ServiceNames(lookup=lambda port, _: {443: "https", 6379: "redis"}.get(port, ""))


class Script:
    """A source that gives one sample after the other, and the clock that sleeps between."""

    def __init__(self, *samples: Sequence[EdgeRow], sockets: Sequence[ConnectionRow] = ()) -> None:
        self.samples = list(samples)
        self.sockets = sockets
        self.now = 0.0
        self.slept: list[float] = []

    def edges(self) -> list[EdgeRow]:
        return list(self.samples.pop(0) if len(self.samples) > 1 else self.samples[0])

    def connections(self) -> list[ConnectionRow]:
        return list(self.sockets)

    def describe(self) -> str:
        return "script"

    def close(self) -> None:
        pass

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds

    def once(
        self, what: str = "edges", *, sort: str = "rate", filter_text: str = "", limit: int = 50,
        as_json: bool = False, interval: float = 1.0, out: TextIO | None = None,
    ) -> str:  # fmt: skip
        target: TextIO = out or io.StringIO()
        print_once(self, what, sort, filter_text, limit, "json" if as_json else "table", interval, target,
                   self.clock, self.sleep, lambda: 1_700_000_000.5, SERVICES)  # fmt: skip
        return target.getvalue() if isinstance(target, io.StringIO) else ""


def two_samples() -> Script:
    redis = {"workload": "redis", "kind": "container", "process": "redis-server", "role": "destination",
             "remote_address": "10.0.0.0/24", "port": 6379, "live": 12, "rtt_p50_us": 81.5,
             "pid": 9}  # fmt: skip
    curl = {"remote_address": "2001:db8::9", "local_address": "2001:db8::1", "retransmitted": 3}
    return Script(
        [edge("r", **redis, age_seconds=10.0), edge("c", **curl, age_seconds=20.0)],
        [
            edge("r", **redis, age_seconds=12.0, sent_bytes=4_000_000, received_bytes=2000),
            edge("c", **curl, age_seconds=22.0, sent_bytes=100, received_bytes=50_000_000),
        ],
    )


GOLDEN = """\
NAME  PROCESS       PID LOCAL       REMOTE        PEER     SERVICE    PROT   LIVE   TX/s▾   RX/s▾      TX      RX     RTT  RETR
curl  curl              2001:db8::1 → 2001:db8::9 external 443 https  tcp       0    50 B 25.0 MB   100 B 50.0 MB       -     3
redis redis-server    9 10.0.0.1    ← 10.0.0.0/24 external 6379 redis tcp      12 2.00 MB 1.00 kB 4.00 MB 2.00 kB 81.5 µs     0
"""  # noqa: E501


def words(text: str) -> list[list[str]]:
    return [line.split() for line in text.splitlines()]


def test_table() -> None:
    assert two_samples().once() == GOLDEN


def test_sort_filter_and_limit() -> None:
    assert words(two_samples().once(sort="total"))[1][0] == "curl"
    assert words(two_samples().once(sort="latency"))[1][0] == "redis"
    assert [line[0] for line in words(two_samples().once(filter_text="port:6379"))] == ["NAME", "redis"]
    assert two_samples().once(limit=1).splitlines()[-1] == "… and 1 more"


def test_json() -> None:
    answer = json.loads(two_samples().once(as_json=True, limit=1))
    assert (answer["time"], answer["total"], answer["truncated"]) == (1_700_000_000.5, 2, True)
    (row,) = answer["edges"]
    assert (row["sent_bytes_per_second"], row["received_bytes_per_second"]) == (50.0, 25_000_000.0)
    assert EdgeRow.from_json(row).retransmitted == 3


def test_totals_only_without_an_interval() -> None:
    script = two_samples()
    (row, _) = json.loads(script.once(as_json=True, interval=0))["edges"]
    assert row["sent_bytes_per_second"] is None
    assert script.slept == []


def test_it_waits_for_an_agent_that_takes_its_time() -> None:
    first, second = two_samples().samples
    script = Script(first, first, first, second)
    answer = json.loads(script.once(as_json=True))
    assert answer["edges"][0]["received_bytes_per_second"] == 25_000_000.0
    assert len(script.slept) == 3


def test_an_agent_that_stands_still_is_not_waited_for_without_end() -> None:
    script = Script(two_samples().samples[0])
    assert json.loads(script.once(as_json=True))["edges"][0]["sent_bytes_per_second"] is None
    assert 10 < script.now < 20


def test_connections() -> None:
    script = Script(sockets=[connection(rtt_us=1200), connection("d", protocol="udp", state="", pid=4)])
    text = script.once("connections", interval=0)
    assert "10.0.0.1:40000 → 203.0.113.9:443" in text
    assert "ESTAB" in text
    assert len(json.loads(script.once("connections", interval=0, as_json=True))["connections"]) == 2


def test_a_stream_that_knows_no_arrows() -> None:
    raw = io.BytesIO()
    out = io.TextIOWrapper(raw, encoding="ascii")
    two_samples().once(out=out)
    out.flush()
    assert b"> 2001:db8::9" in raw.getvalue()
    assert b"81.5 us" in raw.getvalue()


def test_no_rows_is_a_heading_only() -> None:
    assert len(Script([]).once(interval=0).splitlines()) == 1


@pytest.mark.parametrize(
    ("what", "sort", "filter_text", "said"),
    [
        ("pairs", "rate", "", "edges and connections"),
        ("edges", "size", "", "choose from rate, total, latency, name"),
        ("edges", "rate", "port:x", "a number or a range"),
    ],
)
def test_what_cannot_be(what: str, sort: str, filter_text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        two_samples().once(what, sort=sort, filter_text=filter_text)
