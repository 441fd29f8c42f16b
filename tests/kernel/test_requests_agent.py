# SPDX-License-Identifier: Apache-2.0
"""Requests as a user sees them: on /metrics, over kills and idle edges, and in the options."""

from __future__ import annotations

import json
import random
import signal
import threading
import time
from collections import Counter

import pytest

from tests.kernel.agents import ASKING, Agent, Page, Rising, weir
from tests.kernel.peers.dialogue import CLIENT, SERVER, Dialogues
from tests.kernel.peers.http_text import answer, get
from tests.kernel.peers.netns import Netns

PORT = 8080
TOTAL, DURATION = "weir_requests_total", "weir_request_duration_seconds"


def shown(page: Page, reporter: str) -> Counter[tuple[str, str]]:
    """Requests by method and status."""
    found: Counter[tuple[str, str]] = Counter()
    for (name, labels), value in page.samples.items():
        has = dict(labels)
        if name == TOTAL and has["reporter"] == reporter and has["protocol"] == "http":
            found[has["method"], has["status"]] += int(value)
    return found


def visit(talks: Dialogues, house: int, method: str, status: int, times: int = 1) -> None:
    body = None if status in (204, 304) or method == "HEAD" else b"body"
    lines = [(CLIENT, get(method=method)), (SERVER, answer(status, body))] * times
    talks.once(PORT, lines, f"127.0.0.{house + 1}")


def test_metrics(instance: str, netns: Netns) -> None:
    with Dialogues(netns) as talks, Agent(instance, (netns,), env=ASKING).ready() as agent:
        talks.listen(address="127.0.0.1", port=PORT)
        for method, status, times in (("GET", 200, 23), ("GET", 503, 3), ("POST", 404, 7), ("HEAD", 200, 2)):
            visit(talks, 0, method, status, times)
        number = talks.connect(PORT, "127.0.0.1")
        talks.say(number, [(CLIENT, get())])
        talks.close(number)
        page = agent.fresh()
    wanted = {("GET", "200"): 23, ("GET", "503"): 3, ("POST", "404"): 7, ("HEAD", "200"): 2, ("GET", ""): 1}
    for reporter in ("source", "destination"):
        assert shown(page, reporter) == wanted
        pair = {"reporter": reporter, "destination_port": PORT, "protocol": "http"}
        assert page.sum(TOTAL, outcome="failure", **pair) == 3 + 1
        assert page.sum(TOTAL, outcome="success", **pair) == 23 + 7 + 2
        assert page.sum(f"{DURATION}_count", **pair) == 35
        assert page.sum(f"{DURATION}_count", **pair, method="GET", outcome="failure") == 3
        assert page.sum(f"{DURATION}_bucket", **pair, le="+Inf") == 35
        assert page.sum(f"{DURATION}_bucket", **pair, le="0.0625") == 35
    assert (
        page.sum("weir_agent_plane_up", plane="requests")
        == page.sum("weir_agent_plane_up", plane="http")
        == 1
    )
    assert page.sum("weir_agent_map_entries", map="requests") == 2 * len(wanted)


def test_no_request_is_lost_and_none_counted_twice(instance: str, netns: Netns) -> None:
    """Idle edges are retired into others, with their request rows; the agent is killed in between."""
    seed = random.randrange(1 << 32)
    chance, rising = random.Random(seed), Rising()
    asked: Counter[tuple[str, str]] = Counter()
    with Dialogues(netns) as talks:
        for house in range(7):
            talks.listen(address=f"127.0.0.{house + 1}", port=PORT)
        for kind in (signal.SIGKILL, signal.SIGTERM, signal.SIGKILL):
            with Agent(instance, (netns,), "--idle", "1", env=ASKING).ready() as agent:
                end = time.monotonic() + chance.uniform(2.0, 3.5)
                while time.monotonic() < end:
                    method, status = chance.choice(["GET", "PUT"]), chance.choice([200, 204, 500])
                    times = chance.randint(1, 5)
                    visit(talks, chance.randrange(7), method, status, times)
                    asked[method, str(status)] += times
                    rising.see(agent.page())
                    time.sleep(chance.choice((0.001, 0.01, 0.7)))
                agent.process.send_signal(kind)
                agent.process.wait()
        with Agent(instance, (netns,), "--idle", "1", env=ASKING).ready() as agent:
            visit(talks, 0, "GET", 302)
            asked["GET", "302"] += 1
            page = agent.page_when(
                lambda p: p.sum("weir_agent_edges") == 2 and shown(p, "source")["GET", "302"] > 0
            )
            rising.see(page)
            assert page.sum("weir_agent_edges") == 2, f"seed {seed}"
            for reporter in ("source", "destination"):
                assert shown(page, reporter) == asked, f"seed {seed}"
                assert page.sum(f"{DURATION}_count", reporter=reporter) == asked.total(), f"seed {seed}"
            assert page.sum("weir_agent_map_entries", map="requests") == 2 * len(asked), f"seed {seed}"


@pytest.mark.parametrize(
    ("options", "protocols"),
    [
        (("--no-requests",), set()),
        (("--opaque-port", str(PORT)), {"tcp"}),
        (("--skip-port", str(PORT)), set()),
    ],
)  # fmt: skip
def test_options(instance: str, netns: Netns, options: tuple[str, ...], protocols: set[str]) -> None:
    with Dialogues(netns) as talks, Agent(instance, (netns,), *options, env=ASKING).ready() as agent:
        talks.listen(address="127.0.0.1", port=PORT)
        visit(talks, 0, "GET", 200, 5)
        page = agent.fresh()
    assert page.label(TOTAL, "protocol") == protocols
    assert page.sum(TOTAL) == (10 if protocols else 0)
    assert page.sum("weir_tcp_connections_opened_total", destination_port=PORT) == 2


def test_stat(instance: str, netns: Netns) -> None:
    """The table, from an agent; JSON of an interval."""
    with Dialogues(netns) as talks, Agent(instance, (netns,), env=ASKING).ready() as agent:
        talks.listen(address="127.0.0.1", port=PORT)
        visit(talks, 0, "GET", 200, 9)
        visit(talks, 0, "GET", 500, 1)
        agent.fresh()
        said = weir("stat", "--agent", agent.url, "--interval", "0")
        assert (said.returncode, said.stderr) == (0, "")
        _, *lines = (line.split() for line in said.stdout.splitlines())
        assert [line[:5] for line in lines] == [
            [direction, "python", "http", "10", "90.00%"] for direction in ("in", "out")
        ]
        told = json.loads(weir("stat", "--agent", agent.url, "--interval", "0.3", "--json").stdout)
        assert told["rows"] == []
        assert len(agent.json("/api/v1/requests")["requests"]) == 4
    wrong = weir("stat", "--watch", "--interval", "0")
    assert wrong.returncode == 2
    assert "--watch needs an --interval" in wrong.stderr


def test_stat_alone(netns: Netns) -> None:
    stop = threading.Event()
    with Dialogues(netns) as talks:
        talks.listen(address="127.0.0.1", port=PORT)
        number = talks.connect(PORT, "127.0.0.1")
        asker = threading.Thread(target=_ask_until, args=(talks, number, stop))
        asker.start()
        said = weir("stat", "--alone", "--netns", netns.name, "--interval", "1", "--json", "--by", "pair",
                    env=ASKING)  # fmt: skip
        stop.set()
        asker.join()
    assert said.stderr == ""
    rows = json.loads(said.stdout)["rows"]
    assert {(row["direction"], row["name"]) for row in rows} == {
        (direction, f"python → python:{PORT}") for direction in ("in", "out")
    }
    assert all(row["requests_per_second"] > 10 and row["success_rate"] == 1 for row in rows)


def _ask_until(talks: Dialogues, number: int, stop: threading.Event) -> None:
    while not stop.is_set():
        talks.say(number, [(CLIENT, get()), (SERVER, answer(200, b"x"))] * 5)


def test_without_udp(instance: str, netns: Netns) -> None:
    """The planes are compiled in each by itself."""
    with Dialogues(netns) as talks, Agent(instance, (netns,), "--no-udp", env=ASKING).ready() as agent:
        talks.listen(address="127.0.0.1", port=PORT)
        visit(talks, 0, "GET", 200, 5)
        page = agent.fresh()
    assert shown(page, "source") == {("GET", "200"): 5}
