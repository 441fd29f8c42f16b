# SPDX-License-Identifier: Apache-2.0
"""More than there is room for: what finds none is in the totals all the same, and is said.

WEIR_SWARM says how many namespaces and processes (10,007).
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import psutil

from tests.kernel.agents import ROOT, Agent, environment
from tests.soak.test_soak import cgroup

__all__ = ["cgroup"]
COUNT = int(os.environ.get("WEIR_SWARM", "10007"))
SENT, ANSWERED = 1009, 503
OPENED, CLOSED = "weir_tcp_connections_opened_total", "weir_tcp_connections_closed_total"
#: Pairs whose edges found no slot count under this workload, both reporters and ways together.
_TCP = ("weir_tcp_sent_bytes_total", "weir_tcp_received_bytes_total")


def _in(cgroup: Path, *command: str) -> subprocess.Popen[str]:
    """A command in a cgroup, from its first instruction on."""
    join = f'echo $$ >"{cgroup}/cgroup.procs"; exec "$@"'
    return subprocess.Popen(["sh", "-c", join, "sh", *command], text=True, cwd=ROOT, stdout=subprocess.PIPE,
                            env=environment(PYTHONPATH=str(ROOT)))  # fmt: skip


def test_ten_thousand_namespaces_and_processes(instance: str, cgroup: Path) -> None:
    """More edges than slots: what is idle makes room, the rest is in the overflow, and nothing is lost."""
    options = ("--cgroup", str(cgroup), "--interval", "1", "--slots", "4096", "--idle", "5")
    with Agent(instance, (), *options).ready() as agent:
        began = time.monotonic()
        process = _in(cgroup, sys.executable, "-m", "tests.soak.swarm", *map(str, (COUNT, SENT, ANSWERED)))
        most = 0
        while process.poll() is None:
            most = max(most, psutil.Process(agent.pid).memory_info().rss)
            page = agent.page()
            assert page.sum("weir_agent_map_entries", map="slots") <= 4096
            time.sleep(1)
        assert process.communicate()[0].strip() == str(COUNT)
        took = time.monotonic() - began
        page = agent.page_when(lambda page: page.sum(CLOSED) == 2 * COUNT, 30)
        told = f"{COUNT} in {took:.0f} s, {most / 2**20:.0f} MiB at most"
        print(told)
        assert page.sum(OPENED) == page.sum(CLOSED) == 2 * COUNT, told
        assert sum(page.sum(name) for name in _TCP) == 2 * COUNT * (SENT + ANSWERED), told
        lost = page.sum("weir_agent_kernel_events_total", event="slot_overflow")
        assert bool(lost) == bool(page.sum("weir_agent_overflow_bytes_total")), "it is said"
        assert page.sum("weir_agent_errors_total") == 0, agent.log
        assert page.sum("weir_agent_edges") <= 4096
        assert len(agent.log) < 40
