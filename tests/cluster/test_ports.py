# SPDX-License-Identifier: Apache-2.0
"""Ports that pods mark by annotations, from a real API and real traffic."""

from __future__ import annotations

from collections.abc import Callable

from tests.cluster.nodes import Cluster
from tests.kernel.agents import ASKING, Agent, Page
from tests.kernel.peers.dialogue import CLIENT, SERVER, Dialogues
from tests.kernel.peers.http_text import answer, get

PORTS = OPAQUE, SKIPPED, PLAIN = 8080, 8081, 8082


def protocols(page: Page) -> list[set[str]]:
    """What requests to each port count as, which both ends must agree on."""
    ends = (
        [page.label("weir_requests_total", "protocol", reporter=end, destination_port=port) for port in PORTS]
        for end in ("source", "destination")
    )
    source, destination = ends
    assert source == destination
    return source


def test_marked_ports(instance: str, cluster: Cluster, access: Callable[..., list[str]]) -> None:
    """From the agent's next snapshot on, for connections that begin; and back when a pod takes it back."""
    here = cluster.node("node-a")
    marks = {"weir/opaque-ports": f"{OPAQUE}, 9", "weir/skip-ports": f"{SKIPPED},none"}
    pod = here.pod("web", annotations=marks)
    said = [(CLIENT, get()), (SERVER, answer(200, b"x"))] * 5
    with (
        Dialogues(pod.netns) as talks,
        Agent(instance, (pod.netns,), *access("node-a"), env=ASKING).ready() as agent,
    ):
        for port in PORTS:
            talks.listen(address=pod.netns.v4, port=port)
        agent.fresh()
        for port in PORTS:
            talks.once(port, said, pod.netns.v4)
        page = agent.fresh()
        assert protocols(page) == [{"tcp"}, set(), {"http"}]
        assert page.sum("weir_requests_total", destination_port=OPAQUE) == 2 * 5
        assert page.sum("weir_tcp_connections_opened_total", destination_port=SKIPPED) == 2
        body = {"metadata": {"annotations": dict.fromkeys(marks)}}
        cluster.control.api.patch_namespaced_pod("web", "prod", body)

        wanted = [{"tcp", "http"}, {"http"}, {"http"}]
        for _ in range(50):
            for port in PORTS:
                talks.once(port, said, pod.netns.v4)
            if protocols(agent.fresh()) == wanted:
                break
        assert protocols(agent.page()) == wanted
