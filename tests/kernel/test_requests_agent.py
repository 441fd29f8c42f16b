# SPDX-License-Identifier: Apache-2.0
"""Requests as a user sees them: on /metrics, over kills and idle edges, and in the options."""

from __future__ import annotations

import random
import signal
import time
from collections import Counter

import pytest

from tests.kernel.agents import Agent, Page, Rising
from tests.kernel.peers.dialogue import CLIENT, SERVER, Dialogues
from tests.kernel.peers.netns import Netns
from tests.kernel.test_http import answer, get

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
    with Dialogues(netns) as talks, Agent(instance, (netns,)).ready() as agent:
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
            with Agent(instance, (netns,), "--idle", "1").ready() as agent:
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
        with Agent(instance, (netns,), "--idle", "1").ready() as agent:
            visit(talks, 0, "GET", 302)
            asked["GET", "302"] += 1
            page = agent.page_when(lambda p: p.sum("weir_agent_edges") == 2)
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
    with Dialogues(netns) as talks, Agent(instance, (netns,), *options).ready() as agent:
        talks.listen(address="127.0.0.1", port=PORT)
        visit(talks, 0, "GET", 200, 5)
        page = agent.fresh()
    assert page.label(TOTAL, "protocol") == protocols
    assert page.sum(TOTAL) == (10 if protocols else 0)
    assert page.sum("weir_tcp_connections_opened_total", destination_port=PORT) == 2
