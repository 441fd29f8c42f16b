# SPDX-License-Identifier: Apache-2.0
"""What is taken away from under a running agent, and an agent that is held: it goes on, and all is exact."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable

import pytest

from tests.kernel.agents import Agent, both, pins
from tests.kernel.peers.netns import Netns
from tests.kernel.peers.tcp import TcpPair, tcp_pair
from weir.kernel import mounts
from weir.kernel import pins as pinning

SENT, RECEIVED = "weir_tcp_sent_bytes_total", "weir_tcp_received_bytes_total"
OPENED = "weir_tcp_connections_opened_total"
#: Seconds that an agent is held for.
HOLD = float(os.environ.get("WEIR_HOLD", "7"))


def exact(agent: Agent, pair: TcpPair, sent: int, received: int, opened: int) -> None:
    wanted = [(sent, sent), (received, received), (opened, opened)]
    page = agent.page_when(lambda p: [both(p, n, pair.port) for n in (SENT, RECEIVED, OPENED)] == wanted)
    assert [both(page, name, pair.port) for name in (SENT, RECEIVED, OPENED)] == wanted


def _delete(instance: str) -> None:
    pinning.remove(pins(instance))


def _delete_run(instance: str) -> None:
    for path in (mounts.RUN / instance).iterdir():
        path.unlink()


@pytest.mark.parametrize("take", [_delete, _delete_run], ids=["pins", "files"])
def test_its_files_are_deleted(instance: str, netns: Netns, take: Callable[[str], None]) -> None:
    """It holds what it needs; the next one begins anew, and says so."""
    with tcp_pair(netns, netns) as pair:
        with Agent(instance, (netns,)).ready() as agent:
            pair.run("send", 1009)
            take(instance)
            pair.run("send", 2003, reply=7)
            exact(agent, pair, 3012, 7, 2)
            assert agent.terminate() == 0, agent.log
        with Agent(instance, (netns,)).ready() as agent:
            pair.run("send", 503)
            exact(agent, pair, 503, 0, 1)
        assert any("kernel side loaded" in line for line in agent.log)


def test_bpffs_is_unmounted(instance: str, netns: Netns) -> None:
    """In a mount namespace of its own, so that no other Weir loses anything."""
    inside = ("unshare", "--mount", "--propagation", "private", "sh", "-c",
              f"umount -l {mounts.RUN}/mnt/bpffs 2>/dev/null; exec \"$@\"", "sh")  # fmt: skip
    with tcp_pair(netns, netns) as pair, Agent(instance, (netns,), wrap=inside).ready() as agent:
        pair.run("send", 1009)
        where = ["nsenter", "--mount", f"--target={agent.pid}"]
        found = subprocess.run([*where, "findmnt", "-n", "-o", "TARGET", "-t", "bpf"], text=True,
                               capture_output=True, check=True).stdout.split()  # fmt: skip
        for point in found:
            subprocess.run([*where, "umount", "-l", point], check=True)
        pair.run("send", 2003, reply=7)
        exact(agent, pair, 3012, 7, 2)
        assert agent.get("/healthz")[0] == 200
        assert agent.terminate() == 0, agent.log


def test_it_is_held(instance: str, netns: Netns) -> None:
    """Everything that went on meanwhile is there when it goes on."""
    with tcp_pair(netns, netns) as pair, Agent(instance, (netns,)).ready() as agent:
        long = pair.open()
        long.move(1009)
        agent.fresh()
        os.kill(agent.pid, signal.SIGSTOP)
        end, opened = time.monotonic() + HOLD, 1
        sent = received = 0
        while time.monotonic() < end:
            done = pair.churn(101)
            opened, sent, received = opened + done.count, sent + done.client_sent, received + done.server_sent
            long.move(503)
            sent += 503
        os.kill(agent.pid, signal.SIGCONT)
        exact(agent, pair, 1009 + sent, received, opened)
        assert agent.get("/healthz")[0] == 200
        long.close()
