# SPDX-License-Identifier: Apache-2.0
"""Owners made of what the API told."""

from __future__ import annotations

from dataclasses import replace as with_fields

import pytest
from msgspec.structs import replace

from tests.unit.synthetic import Clock
from weir.identity.cidrs import packed
from weir.identity.kube.index import ClusterIndex
from weir.identity.kube.names import ClusterNames, Place
from weir.identity.kube.networks import Attachment
from weir.identity.kube.pods import Node, Pod, Service, Slice, pack
from weir.identity.sriov import VirtualFunction
from weir.identity.types import NODE, Owner

ETH0, NET1 = packed("10.244.1.7"), packed("192.168.77.3")
VF = VirtualFunction("ens1f0", 3, "02:aa:bb:cc:dd:ee", 0, 0, 0, 0, pci_address="0000:3b:02.3")
DPDK = Pod(
    "u1", "prod", "dpdk-0", "node-a", "dpdk", "StatefulSet", addresses=(("", ETH0), ("prod/sriov", NET1)),
    attachments=(
        Attachment("", "eth0", (ETH0,)),
        Attachment("prod/sriov", "net1", (NET1,), "02:aa:bb:cc:dd:ee", "0000:3b:02.3"),
    ),
)  # fmt: skip


def names(*pods: Pod, external: tuple[str, str] | None = None) -> ClusterNames:
    index = ClusterIndex(Clock(), wall=Clock())
    for pod in pods:
        index.put_pod(pod)
    return ClusterNames(index, "node-a", external)


@pytest.mark.parametrize(
    "vf",
    [VF, with_fields(VF, pci_address=""), with_fields(VF, mac="00:00:00:00:00:00")],
    ids=["both", "mac", "pci"],
)
def test_a_virtual_function_and_its_pod(vf: VirtualFunction) -> None:
    found = names(DPDK).vf(vf)
    assert (found.namespace, found.pod, found.network_name) == ("prod", "dpdk-0", "prod/sriov")


def test_nobodys_virtual_function() -> None:
    """Of another node's pod with the same PCI address, and of one that has ended."""
    assert names(replace(DPDK, node="node-b")).vf(VF) == VF
    who = names(DPDK)
    who.index.delete_pod("u1")
    assert who.vf(VF) == VF
    assert names(replace(DPDK, running=False)).vf(VF) == VF


def test_places() -> None:
    who = names(DPDK, replace(DPDK, uid="u2", attachments=(), addresses=(("", ETH0),), waits=True))
    assert who.place("u1", NET1) == Place("prod/sriov", "net1")
    assert who.place("u1", ETH0) == Place("", "eth0")
    assert who.place("u1", packed("172.17.0.1")).network is None
    assert who.place("u2", ETH0).network is None
    assert who.place("nobody", ETH0).network is None


def test_services_and_nodes() -> None:
    who = names()
    who.index.put_node(Node("n", "node-b", (packed("172.30.0.2"),)))
    who.index.put_service(Service("s", "prod", "shop", (packed("10.96.0.9"),), ((6, 30080),)))
    assert who.service(packed("10.96.0.9"), 6, 80) == "shop"
    assert who.service(packed("172.30.0.2"), 6, 30080) == "shop"
    assert who.service(packed("172.30.0.2"), 17, 30080) == ""
    assert who.service(packed("192.0.2.1"), 6, 30080) == ""
    found = who.node_at(packed("172.30.0.2"))
    assert found is not None
    assert (found.workload, found.attribution) == ("node/node-b", "node")
    assert who.here.workload == "node/node-a"
    assert ClusterNames(who.index).here == NODE


def test_a_pod_that_stands_for_the_outside() -> None:
    marked = replace(DPDK, labels={"isext": "true", "team": "x"})
    found = names(marked, external=("isext", "true")).at("", ETH0).owner
    assert found is not None
    assert (found.workload, found.kind, found.namespace, found.pod) == ("external", "external", "", "dpdk-0")
    assert dict(found.labels)["team"] == "x"
    other = names(replace(marked, labels={"isext": "false"}), external=("isext", "true")).at("", ETH0).owner
    assert other is not None
    assert (other.workload, other.kind, other.namespace) == ("dpdk", "statefulset", "prod")


def test_a_local_owner_keeps_what_the_cgroup_tells() -> None:
    bare = Owner("0123456789ab", "container", container_id="0123", runtime="containerd", process="nginx",
                 pod="u1", attribution="cgroup", uid="u1")  # fmt: skip
    found = names(DPDK).local(bare)
    assert (found.workload, found.pod, found.process) == ("dpdk", "dpdk-0", "nginx")
    assert found.container_id == "0123"
    assert found.attribution == "cgroup"
    assert names().local(bare) == bare


def test_the_workload_behind_a_service() -> None:
    """Named where all endpoints are of one; the service where one is not known, or there are two."""
    address, web, job = packed("10.96.0.9"), replace(DPDK, uid="w1"), replace(DPDK, uid="j1", workload="job")

    def behind(who: ClusterNames) -> tuple[str, str]:
        found = who.behind(address, 6, 80)
        assert found is not None
        return found.namespace, found.workload

    who = names(DPDK, job)
    assert who.behind(address, 6, 80) is None
    who.index.put_service(Service("s", "prod", "shop", (address,)))
    who.index.take_changes()
    assert behind(who) == ("prod", "service/shop")
    who.index.put_slice(Slice("e1", "prod", "shop", pack({"u1"})))
    assert who.index.take_changes().addresses == {address}
    assert behind(who) == ("prod", "dpdk")
    who.index.put_slice(Slice("e2", "prod", "shop", pack({"w1"})))
    assert behind(who) == ("prod", "service/shop")
    who.index.put_pod(web)
    assert behind(who) == ("prod", "dpdk")
    who.index.put_slice(Slice("e2", "prod", "shop", pack({"w1", "j1"})))
    assert behind(who) == ("prod", "service/shop")
    who.index.put_slice(Slice("e2", "prod", "shop", pack({"w1", ""})))
    assert behind(who) == ("prod", "service/shop")
    who.index.delete_slice("e2")
    assert behind(who) == ("prod", "dpdk")
