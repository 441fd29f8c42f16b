# SPDX-License-Identifier: Apache-2.0
"""All CPUs on one edge, and many who read meanwhile: every page is whole, and the last one exact."""

from __future__ import annotations

import subprocess
import sys
import threading

from tests.kernel.agents import ASKING, ROOT, Agent, Page, Rising, environment
from tests.kernel.peers.hammer import ANSWERED, ASKED, DATAGRAM
from tests.kernel.peers.netns import Netns

PORT, CONNECTIONS, REQUESTS, DATAGRAMS = 8080, 211, 13, 997
OPENED, CLOSED, LIVE = (f"weir_tcp_connections{end}" for end in ("_opened_total", "_closed_total", ""))
TOTAL, COUNT = "weir_requests_total", "weir_request_duration_seconds_count"


def whole(page: Page) -> None:
    """What must hold of any page, whatever went on while it was made."""
    for reporter in ("source", "destination"):
        has = {"reporter": reporter, "destination_port": PORT}
        opened, closed, live = (page.sum(name, **has) for name in (OPENED, CLOSED, LIVE))
        assert opened >= closed, reporter
        assert 0 <= live <= opened, reporter
        assert page.sum(TOTAL, **has) == page.sum(COUNT, **has), reporter
        for name in ("weir_tcp_rtt_seconds", "weir_request_duration_seconds"):
            assert page.sum(f"{name}_bucket", le="+Inf", **has) == page.sum(f"{name}_count", **has), name
        assert page.sum("weir_udp_sent_bytes_total", **has) == len(DATAGRAM) * page.sum(
            "weir_udp_sent_datagrams_total", **has
        )


class Readers:
    """Scrape without a pause; each sees no counter go down, and whole pages only."""

    def __init__(self, agent: Agent, count: int) -> None:
        self._agent, self._on = agent, True
        self.pages, self.wrong = 0, list[str]()
        self._threads = [threading.Thread(target=self._run) for _ in range(count)]

    def _run(self) -> None:
        rising = Rising()
        try:
            while self._on:
                page = self._agent.page()
                rising.see(page)
                whole(page)
                self.pages += 1
        except Exception as error:  # noqa: BLE001 told by the test
            self.wrong.append(repr(error))

    def __enter__(self) -> Readers:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._on = False
        for thread in self._threads:
            thread.join()


def test_every_cpu_on_one_edge(instance: str, netns: Netns) -> None:
    work = list(map(str, (PORT, CONNECTIONS, REQUESTS, DATAGRAMS)))
    command = ["nsenter", f"--net={netns.path}", sys.executable, "-m", "tests.kernel.peers.hammer", *work]
    with Agent(instance, (netns,), "--interval", "0.1", env=ASKING).ready() as agent:
        with Readers(agent, 3) as readers:
            done = subprocess.run(
                command, text=True, cwd=ROOT, env=environment(PYTHONPATH=str(ROOT)), check=True,
                capture_output=True, timeout=120,
            )  # fmt: skip
        assert not readers.wrong, readers.wrong
        assert readers.pages > 10
        cpus = int(done.stdout)
        connections = cpus * CONNECTIONS
        wanted = {
            OPENED: connections, CLOSED: connections, LIVE: 0, TOTAL: connections * REQUESTS,
            "weir_tcp_sent_bytes_total": connections * REQUESTS * len(ASKED),
            "weir_tcp_received_bytes_total": connections * REQUESTS * len(ANSWERED),
            "weir_udp_sent_datagrams_total": cpus * DATAGRAMS,
            "weir_udp_sent_bytes_total": cpus * DATAGRAMS * len(DATAGRAM),
        }  # fmt: skip

        def counted(page: Page, reporter: str) -> dict[str, int]:
            return {name: page.sum(name, reporter=reporter, destination_port=PORT) for name in wanted}

        page = agent.page_when(lambda page: counted(page, "source") == counted(page, "destination") == wanted)
        assert counted(page, "source") == wanted
        assert counted(page, "destination") == wanted
        assert page.sum("weir_agent_edges") <= 6, "one edge by TCP and one by UDP, at each end"
        lost = {
            key: n for key, n in page.counters.items() if key[0] == "weir_agent_kernel_events_total" and n
        }
        assert not lost, lost
