# SPDX-License-Identifier: Apache-2.0
"""Weir in the namespace that it watches: its own traffic is counted once, as anybody's, and makes no more."""

from __future__ import annotations

import http.client
import re
import socket

from tests.kernel.agents import ASKING, Agent, Page, until
from tests.kernel.peers.netns import Netns
from weir.kernel import mounts

SCRAPES = 31
_ASK = """
import sys, urllib.request
for _ in range(int(sys.argv[2])):
    with urllib.request.urlopen(sys.argv[1]) as reply:
        reply.read()
"""


class _Unix(http.client.HTTPConnection):
    """The agent's socket for root, which no network namespace has."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=10)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(self._path)


def page(instance: str) -> Page:
    connection = _Unix(str(mounts.RUN / instance / "api"))
    try:
        connection.request("GET", "/metrics")
        return Page.of(connection.getresponse().read().decode())
    finally:
        connection.close()


def test_scrapes_are_counted_once(instance: str, netns: Netns) -> None:
    wrap = ("nsenter", f"--net={netns.path}")
    with Agent(instance, (netns,), wrap=wrap, env=ASKING) as agent:
        until(lambda: "msg=serving" in "\n".join(agent.log) or agent.process.poll() is not None)
        found = re.search(r"metrics=http://127\.0\.0\.1:(\d+)/metrics", "\n".join(agent.log))
        assert found, agent.log
        port = int(found[1])
        netns.run("python3", "-c", _ASK, f"http://127.0.0.1:{port}/metrics", str(SCRAPES))

        def counted() -> list[int]:
            now = page(instance)
            return [
                now.sum(name, reporter=reporter, destination_port=port)
                for name in ("weir_requests_total", "weir_tcp_connections_opened_total")
                for reporter in ("source", "destination")
            ]

        until(lambda: counted() == [SCRAPES] * 4)
        assert counted() == [SCRAPES] * 4
        missed = page(instance).sum("weir_agent_bpf_recursion_misses_total")
        assert missed == 0
        assert agent.terminate() == 0
