# SPDX-License-Identifier: Apache-2.0
"""CPUs that go and come back while Weir counts. Only in a virtual machine: the host keeps its own."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kernel.agents import Agent, both
from tests.kernel.peers.netns import Netns
from tests.kernel.peers.tcp import TcpPair, tcp_pair
from tests.kernel.peers.udp import udp_pair

_LAST = Path("/sys/devices/system/cpu/cpu1/online")
SENT, OPENED = "weir_tcp_sent_bytes_total", "weir_tcp_connections_opened_total"
UDP = "weir_udp_sent_datagrams_total"


@pytest.fixture
def cpu() -> Iterator[Path]:
    if platform.node() != "guest":
        pytest.skip("CPUs are taken away in a virtual machine of scripts/kernel only")
    if not _LAST.exists():
        pytest.skip("this machine has one CPU")
    yield _LAST
    _LAST.write_text("1")


def test_a_cpu_goes_and_comes_back(instance: str, netns: Netns, cpu: Path) -> None:
    with (
        Agent(instance, (netns,)).ready() as agent,
        tcp_pair(netns, netns) as pair,
        udp_pair(netns, netns) as datagrams,
    ):
        long, port = pair.open(), datagrams.now().servers[0].local[1]
        opened, sent, told = 1, 0, 0

        def traffic(pair: TcpPair = pair) -> None:
            nonlocal opened, sent, told
            done = pair.churn(53)
            long.move(1009)
            datagrams.move("send", 101, 7)
            opened, sent, told = opened + done.count, sent + done.client_sent + 1009, told + 101

        traffic()
        for state in ("0", "1", "0", "1"):
            cpu.write_text(state)
            traffic()
        wanted = (sent, sent), (opened, opened)
        page = agent.page_when(lambda p: (both(p, SENT, pair.port), both(p, OPENED, pair.port)) == wanted)
        assert (both(page, SENT, pair.port), both(page, OPENED, pair.port)) == wanted
        assert both(page, UDP, port) == (told, told)
        assert page.sum("weir_agent_errors_total") == 0
        long.close()
