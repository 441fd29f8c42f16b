# SPDX-License-Identifier: Apache-2.0
"""Both ends of edges in a cluster, on made-up drains: what is named when, and what is cut off."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from tests.unit.synthetic import Clock, drain, identity, slot
from weir.identity.cidrs import Cidrs, OwnAddresses, packed
from weir.identity.index import Identity
from weir.identity.kube.index import ClusterIndex
from weir.identity.kube.names import ClusterNames
from weir.identity.kube.networks import Attachment
from weir.identity.kube.pods import Node, Pod, Slice, pack
from weir.identity.remote import Entry, Remotes
from weir.identity.types import Ends, Owner
from weir.kernel.layout import DESTINATION, RETIRING, SOURCE, Array

UID = "12345678-9abc-4ef0-8234-56789abcdef{}"
EPOCH = 1_700_000_000.0


def pod(number: int, address: str, name: str = "", **more: Any) -> Pod:
    name, addresses = name or f"p{number}", (("", packed(address)),)
    made = Pod(UID.format(number), "prod", name, "node-a", name, "Deployment", addresses=addresses)
    return replace(made, **more)


@pytest.mark.parametrize("network", ["", "prod/sriov-a"])
def test_endpoints_are_of_the_default_network(network: str) -> None:
    """The same address on a secondary network is somebody else; a pod's port there is not its service's."""
    index = ClusterIndex()
    outside, inside = packed("192.168.7.9"), packed("192.168.7.7")
    index.put_pod(replace(pod(2, "192.168.7.7"), addresses=((network, inside),)))
    index.put_slice(Slice("s1", "prod", "web", pack({UID.format(2)}), ((6, 80),)))
    index.put_slice(Slice("s2", "prod", "database", b"", ((6, 80),), (outside,)))
    index.label_by_endpoint()
    remotes = Remotes(Cidrs(), OwnAddresses(Clock()), ClusterNames(index))
    found = []
    for address in (inside, outside):
        path = network, packed("192.168.7.1"), address, 80, 6, SOURCE
        entry = Entry(1, path, 128, Owner("client", "pod"), born=1e12)
        found.append((remotes.resolve(entry).workload, entry.service))
    default = [("p2", "web"), ("service/database", "")]
    assert found == (default if not network else [("p2", ""), ("external", "")])


class House:
    """Identity over a cgroup tree of pods 0 to 9; the local pod is number 1 with 10.244.0.1."""

    def __init__(self, tmp: Path) -> None:
        self.clock = Clock(100.0)
        self.index = ClusterIndex(self.clock, wall=lambda: self.clock.now + EPOCH)
        self.folders = {n: tmp / f"cg/kubepods/pod{UID.format(n)}/{n:x}{'a' * 63}" for n in range(10)}
        for folder in self.folders.values():
            folder.mkdir(parents=True)
        names = ClusterNames(self.index, "node-a")
        self.who: Identity = identity(tmp, clock=self.clock, cgroup2=tmp / "cg", cluster=names)

    def slot(
        self, remote: str, number: int = 1, local: str = "10.244.0.1", born: float = 50.0, **more: Any
    ) -> Array:
        cgroup = self.folders[number].stat().st_ino
        return slot(local, remote, cgroup=cgroup, netns=number, born_ns=int(born * 1e9), **more)

    def see(self, **slots: Array) -> dict[int, Ends]:
        rows = {int(name[1:]): row for name, row in slots.items()}
        self.seen = self.who.observe(drain(rows))
        return {number: self.who.at(number) for number in rows}


@pytest.fixture
def house(tmp_path: Path) -> House:
    made = House(tmp_path)
    made.index.put_pod(pod(1, "10.244.0.1", "web", since=EPOCH + 10))
    return made


def workloads(ends: Ends) -> tuple[str, str, str]:
    return ends.local.workload, ends.remote.workload, ends.remote.attribution


def test_names_that_come_late_move_what_was_counted(house: House) -> None:
    edge = house.slot("10.244.1.7")
    assert workloads(house.see(s1=edge)[1]) == ("web", "external", "none")
    house.index.put_pod(pod(7, "10.244.1.7", since=EPOCH + 40))
    assert workloads(house.see(s1=edge)[1]) == ("web", "p7", "address")
    assert house.seen.relabelled.tolist() == [1]
    assert house.who.stale == []


def test_what_is_older_than_the_pod_is_not_its_own_and_is_cut_off(house: House) -> None:
    """As after an agent that was away: the edge was somebody's, and new bytes are for who is there now."""
    house.index.put_pod(pod(7, "10.244.1.7", since=EPOCH + 60))
    assert workloads(house.see(s1=house.slot("10.244.1.7", born=50))[1]) == ("web", "external", "none")
    assert house.who.stale == [1]
    old = house.slot("10.244.1.7", born=50, state=RETIRING)
    found = house.see(s1=old, s2=house.slot("10.244.1.7", born=99))
    assert [workloads(ends)[1] for ends in found.values()] == ["external", "p7"]
    assert house.who.stale == []


def test_a_pod_that_goes_keeps_its_edge(house: House) -> None:
    house.index.put_pod(pod(7, "10.244.1.7", since=EPOCH + 40))
    edge = house.slot("10.244.1.7")
    house.see(s1=edge)
    house.index.delete_pod(UID.format(7))
    assert house.index.take_lost() == {packed("10.244.1.7")}
    house.clock.now = 120
    house.index.put_pod(pod(8, "10.244.1.7", since=EPOCH + 110))
    edge["state"] = RETIRING
    found = house.see(s1=edge, s2=house.slot("10.244.1.7", born=119))
    assert [workloads(ends)[1] for ends in found.values()] == ["p7", "p8"]
    house.clock.now = 500  # the grace time is over: the name stays
    assert workloads(house.see(s1=edge)[1])[1] == "p7"


def test_a_counterpart_of_a_pod_that_is_gone_is_not_believed(house: House) -> None:
    """Its server's edge is still there, idle, when another one has the address on another node."""
    house.index.put_pod(pod(2, "10.244.0.2"))
    server = house.slot("10.244.0.1", 2, "10.244.0.2", role=DESTINATION)
    house.see(s2=server)
    house.index.delete_pod(UID.format(2))
    found = house.see(s1=house.slot("10.244.0.2", born=105), s2=server)
    assert workloads(found[1]) == ("web", "external", "none")


def test_loopback_within_a_pod_is_the_pod(house: House) -> None:
    house.index.put_pod(pod(3, "10.244.0.3", "host", host_network=True, addresses=()))
    found = house.see(
        s1=house.slot("127.0.0.1", local="127.0.0.1"), s2=house.slot("127.0.0.1", 3, "127.0.0.1")
    )
    assert workloads(found[1]) == ("web", "web", "netns")
    assert workloads(found[2]) == ("host", "node/node-a", "node")


def test_nobody_is_named_on_a_network_that_is_not_known(house: House) -> None:
    house.index.put_pod(pod(4, "10.244.0.4", addresses=(), waits=True))
    house.index.put_pod(pod(7, "10.244.1.7"))
    house.index.put_node(Node("n", "node-b", (packed("172.30.0.2"),)))
    edge = house.slot("10.244.1.7", 4, "192.168.7.4")
    assert workloads(house.see(s1=edge)[1]) == ("p4", "unknown", "none")
    net1 = Attachment("prod/blue", "net1", (packed("192.168.7.4"),))
    house.index.put_pod(pod(4, "10.244.0.4", attachments=(net1,)))
    found = house.see(s1=edge)[1]
    assert workloads(found) == ("p4", "external", "none")  # nobody on blue has that address
    assert (found.network_name, found.interface) == ("prod/blue", "net1")
    away = pod(8, "10.244.1.8", addresses=(("prod/blue", packed("10.244.1.7")),), since=EPOCH + 40)
    house.index.put_pod(away)
    assert workloads(house.see(s1=edge)[1]) == ("p4", "p8", "address")


def test_a_pod_that_the_api_has_not_told_of_yet(house: House) -> None:
    """Its container's id names it, then its workload; what it counted goes along."""
    edge = house.slot("10.244.0.1", 5, "10.244.0.5")
    found = house.see(s1=edge)[1]
    assert (found.local.workload, found.local.pod) == ("5" + "a" * 11, UID.format(5))
    assert found.remote.workload == "unknown"
    house.index.put_pod(pod(5, "10.244.0.5", "late"))
    found = house.see(s1=edge)[1]
    assert (found.local.workload, found.local.pod, found.remote.workload) == ("late", "late", "web")
    assert house.seen.relabelled.tolist() == [1]
