# SPDX-License-Identifier: Apache-2.0
"""Traffic and new pods over several ends of the API server and of the agent: every byte, by its own name."""

from __future__ import annotations

import os
import random
from collections import Counter

from tests.cluster.nodes import Cluster
from tests.cluster.test_names import PODS, SENT, Access, namespaces
from tests.kernel.agents import Agent, Page
from tests.kernel.peers.tcp import TcpPair, tcp_pair

TURNS = int(os.environ.get("WEIR_RESTARTS", "3"))


def by_pod(page: Page, pods: list[str]) -> Counter[str]:
    """What the client's end reports."""
    return Counter({pod: page.sum(SENT, reporter="source", destination_pod=pod) for pod in pods})


def test_traffic_over_restarts(instance: str, cluster: Cluster, access: Access) -> None:
    rng, truth = random.Random(7), Counter[str]()
    here, there = cluster.node("node-a"), cluster.node("node-b")
    client = here.pod("client")
    pairs: dict[str, TcpPair] = {}
    options = access("node-a", *PODS)

    def start() -> Agent:
        return Agent(instance, namespaces(client), *options).ready()

    def traffic(times: int = 1) -> None:
        for _ in range(times):
            for pod, pair in pairs.items():
                size = rng.randrange(1, 50_000)
                pair.run("send", size)
                truth[pod] += size

    agent = start()
    try:
        for turn in range(TURNS):
            for n in range(3):
                pod = there.pod(f"s{turn}-{n}")
                pairs[pod.name] = cluster.stack.enter_context(
                    tcp_pair(client.netns, pod.netns, client_cgroup=client.cgroup, server_cgroup=pod.cgroup)
                )
            traffic()
            cluster.control.stop()
            traffic()
            if turn % 2:  # the next one begins without an API, with nobody's name
                agent.kill()
                agent.__exit__(None, None, None)
                traffic()
                agent = start()
            traffic()
            cluster.control.start()
            traffic()
        page = agent.page_when(lambda page: by_pod(page, [*truth]) == truth, 90)
        assert by_pod(page, [*truth]) == truth
        assert page.sum(SENT, reporter="source") == truth.total(), "and nothing else was counted"
        assert agent.get("/healthz")[0] == 200
        assert len(agent.log) < 60
    finally:
        agent.__exit__(None, None, None)
