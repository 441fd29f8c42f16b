# SPDX-License-Identifier: Apache-2.0
"""A load balancer in the socket layer: connect(2) is rewritten before anybody sees what was dialled."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster import objects
from tests.cluster.nodes import Cluster
from tests.cluster.test_names import PODS, SENT, Access, both_ends, namespaces, reports
from tests.cluster.test_services import VIP, dial, listening
from tests.kernel.agents import Agent
from tests.kernel.peers.process import Peer
from weir.kernel import bpf, socket_lb

_SOCK_ADDR, _INET4_CONNECT = 18, 10  # enum bpf_prog_type, bpf_attach_type
_ADDRESS, _PORT = 4, 24  # struct bpf_sock_addr: user_ip4, user_port, both as on the wire


def _program(dialled: tuple[str, int], backend: tuple[str, int]) -> bytes:
    """``if (user_ip4 == … && user_port == …) { user_ip4 = …; user_port = …; } return 1;``"""
    (address, port), (to_address, to_port) = (
        (struct.unpack("<i", socket.inet_aton(where))[0], socket.htons(number))
        for where, number in (dialled, backend)
    )
    instructions = (  # operation, source << 4 | destination, offset, number
        (0x61, 0x12, _ADDRESS, 0), (0x56, 0x02, 6, address), (0x61, 0x12, _PORT, 0), (0x56, 0x02, 4, port),
        (0xB4, 0x02, 0, to_address), (0x63, 0x21, _ADDRESS, 0), (0xB4, 0x02, 0, to_port),
        (0x63, 0x21, _PORT, 0), (0xB7, 0x00, 0, 1), (0x95, 0x00, 0, 0),
    )  # fmt: skip
    return b"".join(struct.pack("<BBhi", *instruction) for instruction in instructions)


@contextlib.contextmanager
def rewriting(cgroup: Path, backend: tuple[str, int]) -> Iterator[None]:
    """Who connects to the service's address reaches the backend, as with Cilium's kube-proxy replacement."""
    program = bpf.prog_load(_SOCK_ADDR, _INET4_CONNECT, _program((VIP, 80), backend), "weirt_rewrite")
    folder = os.open(cgroup, os.O_RDONLY | os.O_DIRECTORY)
    link = bpf.link_cgroup(program, folder, _INET4_CONNECT)
    try:
        yield
    finally:
        for fd in (link, folder, program):
            os.close(fd)


@pytest.mark.parametrize("how", ["told", "found"])
def test_the_service_by_its_endpoints(instance: str, cluster: Cluster, access: Access, how: str) -> None:
    here, there = cluster.node("node-a"), cluster.node("node-b")
    client, server = here.pod("client"), there.pod("server", objects.owner("StatefulSet", "db"))
    api = cluster.control.api
    api.create_namespaced_service("prod", objects.service("prod", "shop", {80: 8080}, VIP))
    options = ["--services", "endpoints"] if how == "told" else ["--cgroup", str(client.cgroup)]
    with (
        listening(server) as (backend,),
        Peer(client.netns, client.cgroup) as caller,
        rewriting(client.cgroup, (server.netns.v4, backend.port)),
        Agent(instance, namespaces(client), *access("node-a"), *PODS, *options).ready() as agent,
    ):
        assert socket_lb.found([str(client.cgroup)])
        assert not socket_lb.found([str(server.cgroup), "/nowhere"])
        link = dial(caller, VIP, 80, backend)
        link.move(503)
        found = reports(agent.page_when(lambda p: p.sum(SENT) == 503), backend.port)["source"]
        assert both_ends(found) == ("prod/client/client", "prod/db/server", "address")
        assert found["destination_service"] == ""  # no endpoint of anything, as far as anybody knows
        cluster.control.slice(objects.slice_of("prod", "shop", server.uid, port=backend.port))
        agent.page_when(lambda p: "shop" in p.label(SENT, "destination_service"))
        link.move(1009)
        page = agent.page_when(lambda p: p.sum(SENT) == 1512)
        assert page.sum(SENT, destination_service="shop", destination_pod="server") == 1512
        link.close()
        cluster.control.wipe_slices()


def test_an_endpoint_that_is_no_pod(instance: str, cluster: Cluster, access: Access) -> None:
    """A database beside the cluster, with a service and an EndpointSlice by hand."""
    node, outside = cluster.node("node-a"), cluster.fabric.outside()
    client = node.pod("client")
    node.proxy([])
    made = objects.slice_of("prod", "database", port=5432)
    made["endpoints"] = [{"addresses": [outside.v4]}]
    cluster.control.slice(made)
    with (
        Peer(client.netns, client.cgroup) as caller,
        Peer(outside) as database,
        Agent(instance, namespaces(client), *access("node-a"), *PODS).ready() as agent,
    ):
        for port in (5432, 5433):
            listening_at = database.ask(
                "listen", family=socket.AF_INET, address=outside.v4, port=port, rcvbuf=0
            )
            assert listening_at["port"] == port
            caller.ask("connect", family=socket.AF_INET, address=outside.v4, port=port)
        opened = "weir_tcp_connections_opened_total"
        page = agent.page_when(lambda p: p.sum(opened) == 2)
        known = page.label(opened, "destination_workload", destination_port=5432)
        assert (known, page.label(opened, "destination_workload", destination_port=5433)) == (
            {"service/database"}, {"external"},
        )  # fmt: skip
    cluster.control.wipe_slices()
