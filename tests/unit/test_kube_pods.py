# SPDX-License-Identifier: Apache-2.0
"""API objects → pods, services, nodes; network annotations as users and Multus write them."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from weir.identity.cidrs import packed
from weir.identity.kube.networks import ANNOTATIONS, Attachment, attachments
from weir.identity.kube.objects import NodeObject, PodObject, ServiceObject
from weir.identity.kube.pods import Pod, node_of, pod_of, service_of

STATUS, OLDER = ANNOTATIONS
VF = [
    {
        "name": "cbr0", "interface": "eth0", "ips": ["10.244.1.7", "fd00::7"], "mac": "aa:bb:cc:00:00:01",
        "default": True,
    },
    {
        "name": "prod/sriov-a", "interface": "net1", "ips": ["192.168.7.7"], "mac": "02:00:00:00:00:07",
        "dns": {}, "device-info": {"type": "pci", "version": "1.0.0", "pci": {"pci-address": "0000:3B:02.1"}},
    },
    {"name": "prod/macvlan-b", "interface": "net2", "ips": ["192.168.7.7"]},
]  # fmt: skip


def pod(annotations: dict[str, str] | None = None, **more: Any) -> PodObject:
    value = {
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "web-6f7d-x2", "namespace": "prod", "uid": "u1", "annotations": annotations,
                     **more.pop("metadata", {})},
        "spec": {"nodeName": "node-a", "containers": [{"name": "c"}], **more.pop("spec", {})},
        "status": {"phase": "Running", "podIP": "10.244.1.7",
                   "podIPs": [{"ip": "10.244.1.7"}, {"ip": "fd00::7"}], **more.pop("status", {})},
    }  # fmt: skip
    return msgspec.json.decode(json.dumps(value), type=PodObject)


def owned(kind: str, name: str, **labels: str) -> dict[str, Any]:
    owners = [{"kind": "Other", "name": "no"}, {"kind": kind, "name": name, "controller": True}]
    return {"ownerReferences": owners, "labels": labels}


@pytest.mark.parametrize(
    ("metadata", "expected"),
    [
        ({}, ("web-6f7d-x2", "Pod")),
        (owned("ReplicaSet", "web-6f7d", **{"pod-template-hash": "6f7d"}), ("web", "Deployment")),
        (owned("ReplicaSet", "bare"), ("bare", "ReplicaSet")),
        (owned("ReplicaSet", "odd-6f7d", **{"pod-template-hash": "zzzz"}), ("odd-6f7d", "ReplicaSet")),
        (owned("StatefulSet", "db"), ("db", "StatefulSet")),
        (owned("DaemonSet", "cni"), ("cni", "DaemonSet")),
        (owned("Job", "backup-29100"), ("backup-29100", "Job")),
        ({**owned("Node", "node-a"), "name": "kube-apiserver-node-a"}, ("kube-apiserver", "Pod")),
    ],
)
def test_workload(metadata: dict[str, Any], expected: tuple[str, str]) -> None:
    found, _ = pod_of(pod(metadata=metadata))
    assert (found.workload, found.kind) == expected


@pytest.mark.parametrize("name", ANNOTATIONS)
def test_interfaces_of_a_pod(name: str) -> None:
    found, bad = pod_of(pod({name: json.dumps(VF)}))
    assert not bad
    assert found.addresses == (
        ("", packed("10.244.1.7")), ("", packed("fd00::7")), ("prod/sriov-a", packed("192.168.7.7")),
        ("prod/macvlan-b", packed("192.168.7.7")),
    )  # fmt: skip
    assert found.attachments[1] == Attachment(
        "prod/sriov-a", "net1", (packed("192.168.7.7"),), "02:00:00:00:00:07", "0000:3b:02.1"
    )
    first = found.attachment(packed("10.244.1.7"))
    assert first is not None
    assert (first.network, first.interface) == ("", "eth0")


def test_the_newer_annotation_counts() -> None:
    assert attachments({OLDER: "[]", STATUS: json.dumps(VF)})[0][0].interface == "eth0"


def test_a_pod_on_the_hosts_network_has_no_address_of_its_own() -> None:
    found, _ = pod_of(pod(spec={"hostNetwork": True}))
    assert (found.host_network, found.addresses) == (True, ())


@pytest.mark.parametrize("phase", ["Succeeded", "Failed"])
def test_a_pod_that_has_ended(phase: str) -> None:
    assert not pod_of(pod(status={"phase": phase}))[0].running


def test_only_wanted_labels_are_kept() -> None:
    found, _ = pod_of(pod(metadata={"labels": {"isext": "true", "x": "y" * 5000}}), ["isext", "tier"])
    assert found.labels == {"isext": "true"}


HOSTILE = [
    "{", "null", "7", '"text"', "[7]", "[[]]", '[{"ips": "10.0.0.1"}]', '[{"name": 7}]', "[" * 100_000,
    json.dumps([{"name": "n", "interface": "net1", "ips": ["999.1.1.1"]}]),
    json.dumps([{"name": "n" * 300, "interface": "net1", "ips": ["10.0.0.1"]}]),
    json.dumps([{"name": "n", "interface": "i" * 16}]),
    json.dumps(VF) + " " * 70_000,
    "\ud800", "[{}" + ",{}" * 70 + "]",
]  # fmt: skip


@pytest.mark.parametrize("text", HOSTILE)
def test_annotations_that_are_not_as_specified_are_said(text: str) -> None:
    found, bad = attachments({STATUS: text})
    assert bad
    assert all(a.network != "n" for a in found)
    assert len(found) <= 64


def test_what_is_good_in_an_annotation_stays() -> None:
    broken = [*VF, {"name": "n", "interface": "net3", "ips": ["nonsense"]}]
    found, bad = attachments({STATUS: json.dumps(broken)})
    assert bad
    assert [a.interface for a in found] == ["eth0", "net1", "net2"]


def test_no_annotation() -> None:
    assert attachments(None) == attachments({}) == attachments({STATUS: " "}) == ((), False)


def test_service() -> None:
    value = {
        "metadata": {"name": "web", "namespace": "prod", "uid": "s1"},
        "spec": {
            "clusterIP": "10.96.0.7",
            "clusterIPs": ["10.96.0.7", "fd01::7"],
            "externalIPs": ["192.0.2.7"],
        },
        "status": {"loadBalancer": {"ingress": [{"ip": "198.51.100.7"}, {"hostname": "lb.example"}]}},
    }
    found = service_of(msgspec.json.decode(json.dumps(value), type=ServiceObject))
    assert found.addresses == tuple(map(packed, ("10.96.0.7", "fd01::7", "192.0.2.7", "198.51.100.7")))


def test_a_headless_service_has_no_address() -> None:
    value = {"metadata": {"name": "db", "uid": "s2"}, "spec": {"clusterIP": "None", "clusterIPs": ["None"]}}
    assert service_of(msgspec.json.decode(json.dumps(value), type=ServiceObject)).addresses == ()


def test_node() -> None:
    addresses = [
        {"type": "Hostname", "address": "node-a"},
        {"type": "InternalIP", "address": "172.18.0.2"},
        {"type": "ExternalIP", "address": "2001:db8::2"},
    ]
    value = {"metadata": {"name": "node-a", "uid": "n1"}, "status": {"addresses": addresses}}
    found = node_of(msgspec.json.decode(json.dumps(value), type=NodeObject))
    assert (found.name, found.addresses) == ("node-a", (packed("172.18.0.2"), packed("2001:db8::2")))


def test_equal_pods_are_equal() -> None:
    """So that an update which changes nothing for Weir renames nothing."""
    one, other = (pod_of(pod({STATUS: json.dumps(VF)}))[0] for _ in range(2))
    assert one == other
    assert isinstance(one, Pod)


def test_node_ports_are_of_protocols_that_are_counted() -> None:
    ports = [{"port": 80, "nodePort": 30080}, {"port": 53, "protocol": "UDP", "nodePort": 30053},
             {"port": 99, "protocol": "SCTP", "nodePort": 30099}, {"port": 81}]  # fmt: skip
    value = {"metadata": {"name": "web", "uid": "s3"}, "spec": {"clusterIP": "10.96.0.7", "ports": ports}}
    found = service_of(msgspec.json.decode(json.dumps(value), type=ServiceObject))
    assert found.node_ports == ((6, 30080), (17, 30053))


@pytest.mark.parametrize(("field", "most"), [("name", 253), ("interface", 15), ("mac", 59)])
def test_texts_of_an_annotation_have_a_bound(field: str, most: int) -> None:
    for length, taken in ((most, 1), (most + 1, 0)):
        found, bad = attachments({STATUS: json.dumps([{"name": "n", field: "a" * length}])})
        assert (len(found), bad) == (taken, not taken)
