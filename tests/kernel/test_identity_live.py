# SPDX-License-Identifier: Apache-2.0
"""Who is at both ends, on live cgroups: containers, pods, units, processes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.kernel.agents import Agent, Page
from tests.kernel.peers.netns import Netns, Wire
from tests.kernel.peers.tcp import TcpPair, tcp_pair
from tests.kernel.peers.udp import udp_pair

SENT = "weir_tcp_sent_bytes_total"
ONE, TWO = "1" * 12 + "a" * 52, "2" * 12 + "b" * 52
POD = "0f0e0d0c-0b0a-4908-8706-050403020100"
CGROUPS = {
    f"docker/{ONE}": ("1" * 12, ""),
    f"system.slice/docker-{ONE}.scope": ("1" * 12, ""),
    f"system.slice/containerd.service/kubepods-besteffort.slice:cri-containerd:{ONE}": ("1" * 12, ""),
    f"kubepods/burstable/pod{POD}/{ONE}": ("1" * 12, POD),
    f"kubepods.slice/kubepods-pod{POD.replace('-', '_')}.slice/crio-{ONE}.scope": ("1" * 12, POD),
    f"machine.slice/libpod-{ONE}.scope": ("1" * 12, ""),
    f"docker/{TWO}/docker/{ONE}": ("1" * 12, ""),
    "system.slice/foo.service": ("foo.service", ""),
    "system.slice/system-getty.slice/getty@tty1.service": ("getty@tty1.service", ""),
}


def names(page: Page, port: int, name: str = SENT) -> dict[str, tuple[str, str]]:
    """Reporter -> source and destination workload."""
    found = {}
    for reporter in ("source", "destination"):
        given = {"reporter": reporter, "destination_port": port}
        (source,) = page.label(name, "source_workload", **given)
        (destination,) = page.label(name, "destination_workload", **given)
        found[reporter] = source, destination
    return found


def reported(pair: TcpPair, page: Page) -> int:
    return page.sum(SENT, destination_port=pair.port)


def test_every_form_of_cgroup(instance: str, netns: Netns, cgroup: Callable[..., Path]) -> None:
    """The client lies in each in turn, the server in a container of its own; both ends are named."""
    server = cgroup(f"docker/{TWO}")
    with Agent(instance, (netns,), "--labels", "source_pod", "--labels", "process").ready() as agent:
        for below, (workload, pod) in CGROUPS.items():
            client = cgroup(below)
            with tcp_pair(netns, netns, client_cgroup=client, server_cgroup=server) as pair:
                pair.run("send", 1009, reply=503)
                page = agent.page_when(lambda p, pair=pair: reported(pair, p) == 2018)  # type: ignore[misc]
                assert reported(pair, page) == 2018
                both_ends = workload, "2" * 12
                assert names(page, pair.port) == {"source": both_ends, "destination": both_ends}, below
                assert page.label(SENT, "source_pod", destination_port=pair.port) == {pod}, below
                kinds = page.label(SENT, "attribution", destination_port=pair.port)
                assert kinds == {"address"}, below


def test_a_process_without_container_or_unit(
    instance: str, netns: Netns, cgroup: Callable[..., Path]
) -> None:
    """A login session's scope is no workload; a loopback pair names both ends by process."""
    with Agent(instance, (netns,), "--labels", "process").ready() as agent:
        with tcp_pair(
            netns, netns, client_cgroup=cgroup("user.slice/session-3.scope"), server_cgroup=cgroup()
        ) as pair:
            name = Path(f"/proc/{pair.client.pid}/comm").read_text().strip()
            pair.run("send", 1009)
            page = agent.page_when(lambda p: reported(pair, p) == 2018)
            found = names(page, pair.port)
            assert found["source"] == found["destination"]
            assert {part.split(".")[0] for part in found["source"]} == {name.split(".")[0]}
        with udp_pair(
            netns, netns, client_cgroup=cgroup("a.service"), server_cgroup=cgroup("b.service")
        ) as udp:
            udp.run("send", 7, 101, reply=13)
            sent, port = "weir_udp_sent_bytes_total", udp.ports[0]
            page = agent.page_when(lambda p: p.sum(sent, destination_port=port) == 2 * 707)
            ends = ("a.service", "b.service")
            assert names(page, port, sent) == {"source": ends, "destination": ends}


def test_a_short_life(instance: str, netns: Netns, cgroup: Callable[..., Path]) -> None:
    """The processes are gone before they are first looked at: their cgroups still name them."""
    client, server = cgroup(f"docker/{ONE}"), cgroup("late.service")
    with Agent(instance, (netns,), "--interval", "2").ready() as agent:
        with tcp_pair(netns, netns, client_cgroup=client, server_cgroup=server) as pair:
            pair.run("send", 1009)
        page = agent.page_when(lambda p: reported(pair, p) == 2018)
        ends = "1" * 12, "late.service"
        assert names(page, pair.port) == {"source": ends, "destination": ends}


@pytest.mark.parametrize(("options", "name"), [((), "external"), (("--cidr", "lab=10.211.0.0/24"), "lab")])
def test_an_end_that_is_not_here(instance: str, wire: Wire, options: tuple[str, ...], name: str) -> None:
    """Only the client's namespace is watched: its far end has the name of its network, if any."""
    with (
        Agent(instance, (wire.client,), *options).ready() as agent,
        tcp_pair(wire.client, wire.server) as pair,
    ):
        pair.run("send", 1009)
        page = agent.page_when(lambda p: reported(pair, p) == 1009)
        assert page.label(SENT, "destination_workload", destination_port=pair.port) == {name}
        assert page.label(SENT, "reporter", destination_port=pair.port) == {"source"}
