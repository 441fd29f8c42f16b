# SPDX-License-Identifier: Apache-2.0
"""Services by kube-proxy-like translation: what was dialled, and who was reached, at both ends."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.cluster import objects
from tests.cluster.nodes import Cluster, Node, Pod, Proxied
from tests.cluster.test_names import PODS, SENT, Access, both_ends, namespaces, reports
from tests.kernel.agents import Agent, Page
from tests.kernel.peers.process import FAMILIES, Peer
from tests.kernel.peers.tcp import Link
from tests.kernel.peers.udp import open_socket

VIP, PORT, NODE_PORT = "10.96.11.12", 80, 30080


@dataclass
class Backend:
    """A process of a pod that listens."""

    pod: Pod
    peer: Peer
    listener: int
    port: int


@contextlib.contextmanager
def listening(*pods: Pod, port: int = 0) -> Iterator[list[Backend]]:
    with contextlib.ExitStack() as stack:
        found = []
        for pod in pods:
            peer = stack.enter_context(Peer(pod.netns, pod.cgroup))
            answer = peer.ask("listen", family=FAMILIES["v4"], address=pod.netns.v4, port=port, rcvbuf=0)
            found.append(Backend(pod, peer, answer["id"], int(answer["port"])))
        yield found


def dial(client: Peer, address: str, port: int, server: Backend) -> Link:
    server.peer.post("accept", listener=server.listener)
    number = client.ask("connect", family=FAMILIES["v4"], address=address, port=port)
    return Link(
        {"client": client, "server": server.peer},
        {"client": number["id"], "server": server.peer.answer()["id"]},
    )


def exchange(agent: Agent, client: Peer, address: str, port: int, server: Backend, reporters: int) -> Page:
    link = dial(client, address, port, server)
    link.move(1009)
    link.close()
    return agent.page_when(lambda p: p.sum(SENT, destination_port=server.port) == reporters * 1009)


@pytest.fixture
def two(cluster: Cluster) -> tuple[Node, Node]:
    nodes = cluster.node("node-a"), cluster.node("node-b")
    service = objects.service("prod", "shop", {PORT: 8080}, VIP, NODE_PORT)
    cluster.control.api.create_namespaced_service("prod", service)
    return nodes


WEB = ("web-6f7d9c-x2x4z", objects.owner("ReplicaSet", "web-6f7d9c"))
HASH = {"pod-template-hash": "6f7d9c"}


def test_a_cluster_ip_on_one_node(instance: str, two: tuple[Node, Node], access: Access) -> None:
    """Both reporters have the same pair: the backend that was reached, and the service that was dialled."""
    here, _ = two
    client, server = here.pod("client"), here.pod(*WEB, labels=HASH)
    scope = [*namespaces(client, server), here.netns]
    with (
        listening(server) as (backend,),
        Peer(client.netns, client.cgroup) as caller,
        Agent(instance, scope, *access("node-a"), *PODS).ready() as agent,
    ):
        here.proxy([Proxied(VIP, PORT, [(server.netns.v4, backend.port)])])
        found = reports(exchange(agent, caller, VIP, PORT, backend, 2), backend.port)
    expected = ("prod/client/client", "prod/web/web-6f7d9c-x2x4z", "address")
    assert {reporter: both_ends(labels) for reporter, labels in found.items()} == {
        "source": expected, "destination": expected,
    }  # fmt: skip
    assert {labels["destination_service"] for labels in found.values()} == {"shop"}


def test_a_backend_on_another_node(instance: str, two: tuple[Node, Node], access: Access) -> None:
    here, there = two
    client, server = here.pod("client"), there.pod(*WEB, labels=HASH)
    with (
        listening(server) as (backend,),
        Peer(client.netns, client.cgroup) as caller,
        Agent(instance, [client.netns, here.netns], *access("node-a"), *PODS).ready() as agent,
    ):
        here.proxy([Proxied(VIP, PORT, [(server.netns.v4, backend.port)])])
        found = reports(exchange(agent, caller, VIP, PORT, backend, 1), backend.port)["source"]
    assert both_ends(found) == ("prod/client/client", "prod/web/web-6f7d9c-x2x4z", "address")
    assert found["destination_service"] == "shop"


def test_each_connection_has_its_own_backend(instance: str, two: tuple[Node, Node], access: Access) -> None:
    """Bytes by backend are those that each backend got; their sum is what the client sent."""
    here, there = two
    client = here.pod("client")
    servers = [there.pod(f"web-{number}", objects.owner("StatefulSet", "web")) for number in range(3)]
    with (
        listening(*servers, port=8080) as backends,
        Peer(client.netns, client.cgroup) as caller,
        Agent(instance, [client.netns, here.netns], *access("node-a"), *PODS).ready() as agent,
    ):
        truth = dict.fromkeys((pod.name for pod in servers), 0)
        for number, backend in enumerate(backends * 4):
            here.proxy([Proxied(VIP, PORT, [(backend.pod.netns.v4, backend.port)])])
            link = dial(caller, VIP, PORT, backend)
            link.move(101 + number)
            truth[backend.pod.name] += 101 + number
            link.close()
        page = agent.page_when(lambda p: p.sum(SENT) == sum(truth.values()))
    assert {name: page.sum(SENT, destination_pod=name, destination_service="shop") for name in truth} == truth
    assert page.sum(SENT) == sum(truth.values())


def test_a_pod_that_calls_its_own_service(instance: str, two: tuple[Node, Node], access: Access) -> None:
    here, _ = two
    server = here.pod(*WEB, labels=HASH)
    here.ip("link", "set", "veth2", "type", "bridge_slave", "hairpin", "on")  # as the bridge plugin does
    with (
        listening(server) as (backend,),
        Peer(server.netns, server.cgroup) as caller,
        Agent(instance, [server.netns, here.netns], *access("node-a"), *PODS).ready() as agent,
    ):
        here.proxy([Proxied(VIP, PORT, [(server.netns.v4, backend.port)])])
        found = reports(exchange(agent, caller, VIP, PORT, backend, 2), backend.port)
    web = "prod/web/web-6f7d9c-x2x4z"
    assert {both_ends(labels) for labels in found.values()} == {(web, web, "address")}
    assert {labels["destination_service"] for labels in found.values()} == {"shop"}


def test_node_port_from_outside(instance: str, two: tuple[Node, Node], access: Access) -> None:
    """The server sees its node's address where the client was masqueraded; the client's is known here."""
    here, _ = two
    server = here.pod(*WEB, labels=HASH)
    fabric = here.cluster.fabric
    outside = fabric.outside()
    with (
        listening(server) as (backend,),
        Peer(outside) as caller,
        Agent(instance, [server.netns, here.netns], *access("node-a"), "--cidr", "office=172.30.0.200/32",
              *PODS).ready() as agent,
    ):  # fmt: skip
        here.proxy([Proxied(VIP, PORT, [(server.netns.v4, backend.port)], NODE_PORT)])
        page = exchange(agent, caller, here.netns.v4, NODE_PORT, backend, 1)
        found = reports(page, backend.port)["destination"]
    assert both_ends(found) == ("/office/", "prod/web/web-6f7d9c-x2x4z", "address")
    assert found["destination_service"] == "shop"


def test_a_pod_that_calls_the_outside(instance: str, two: tuple[Node, Node], access: Access) -> None:
    """Masqueraded on its way out, which changes nothing for the pod."""
    here, _ = two
    client = here.pod("client")
    outside = here.cluster.fabric.outside()
    bystander = Pod("", "", "", outside, client.cgroup)
    with (
        listening(bystander) as (backend,),
        Peer(client.netns, client.cgroup) as caller,
        Agent(instance, [client.netns, here.netns], *access("node-a"), *PODS).ready() as agent,
    ):
        here.proxy([])
        found = reports(exchange(agent, caller, outside.v4, backend.port, backend, 1), backend.port)["source"]
    assert both_ends(found) == ("prod/client/client", "/external/", "none")
    assert found["destination_service"] == ""


def test_a_host_network_pod_calls_a_service(instance: str, two: tuple[Node, Node], access: Access) -> None:
    here, _ = two
    host = here.pod("exporter-2x4bb", objects.owner("DaemonSet", "exporter"), host_network=True)
    server = here.pod(*WEB, labels=HASH)
    with (
        listening(server) as (backend,),
        Peer(host.netns, host.cgroup) as caller,
        Agent(instance, [server.netns, here.netns], *access("node-a"), *PODS).ready() as agent,
    ):
        here.ip("route", "add", "10.96.0.0/16", "dev", "cni0")
        here.proxy([Proxied(VIP, PORT, [(server.netns.v4, backend.port)])])
        found = reports(exchange(agent, caller, VIP, PORT, backend, 2), backend.port)
    expected = ("prod/exporter/exporter-2x4bb", "prod/web/web-6f7d9c-x2x4z", "address")
    assert {both_ends(labels) for labels in found.values()} == {expected}
    assert {labels["destination_service"] for labels in found.values()} == {"shop"}


@pytest.mark.parametrize("slices", [False, True])
def test_a_first_datagram(instance: str, two: tuple[Node, Node], access: Access, slices: bool) -> None:
    """It leaves before it is translated: to the endpoints' workload where that is one, else the service."""
    here, there = two
    client, server = here.pod("client"), there.pod(*WEB, labels=HASH)
    sent = "weir_udp_sent_bytes_total"
    with (
        Peer(server.netns, server.cgroup) as two_,
        Peer(client.netns, client.cgroup) as one,
        Agent(instance, [client.netns, here.netns], *access("node-a"), *PODS).ready() as agent,
    ):
        listener, port = open_socket(two_, "v4", bind=(server.netns.v4, 0))
        here.proxy([Proxied(VIP, PORT, [(server.netns.v4, port)], protocol="udp")])
        sender, _ = open_socket(one, "v4", connect=(VIP, PORT))
        for _ in range(7):
            one.ask("udp_send", id=sender, way="send", peers=[], size=101, count=1)
            two_.ask("udp_read", id=listener, count=1)
        if slices:
            here.cluster.control.slice(objects.slice_of("prod", "shop", server.uid))
            agent.page_when(lambda p: p.sum(sent, destination_workload="web") == 707)
        page = agent.page_when(lambda p: p.sum(sent) == 707)
    assert page.sum(sent, destination_service="shop") == 707
    first = "web" if slices else "service/shop"
    assert page.sum(sent, destination_workload=first, destination_port=PORT) == 101
    assert page.sum(sent, destination_workload="web", destination_port=port) == 606
