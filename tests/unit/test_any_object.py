# SPDX-License-Identifier: Apache-2.0
"""Whatever the Kubernetes API and its users say, by hypothesis: nothing of it stops the rest."""

from __future__ import annotations

import json
import string
from typing import Any

import msgspec
from hypothesis import event, given
from hypothesis import strategies as st

from tests.unit.synthetic import Clock
from tests.unit.test_any_input import JSON, THOROUGH
from weir.identity.kube.index import ClusterIndex
from weir.identity.kube.networks import ANNOTATIONS, attachments
from weir.identity.kube.objects import NodeObject, PodObject, ServiceObject, SliceObject
from weir.identity.kube.pods import CONFIG_HASH, WANTED, node_of, pod_of, service_of, slice_of
from weir.identity.kube.ports import OPAQUE_PORTS, SKIP_PORTS, ports_of

_TEXT = st.text(max_size=12) | st.sampled_from(
    [
        "10.0.0.1",
        "::1",
        "fe80::1%eth0",
        "10.0.0.256",
        "net1",
        "prod/net",
        "",
        "0x7f.1",
        "TCP",
        "SCTP",
        "Running",
        "Deployment",
        "Node",
        "Job",
        "True",
        "2026-01-01T00:00:00Z",
        "0001-01-01T00:00:00Z",
        "f" * 36,
        "-" * 36,
        "0a0a0a0a-0000-0000-0000-00000000000g",
        "PodReadyToStartContainers",
    ]
)


@THOROUGH
@given(st.text(max_size=100) | JSON.map(json.dumps), st.sampled_from(ANNOTATIONS))
def test_any_annotation_of_networks(text: str, name: str) -> None:
    found, bad = attachments({name: text})
    assert len(found) <= 64
    assert bad in (True, False)
    for one in found:
        assert len(one.network) <= 253
        assert len(one.interface) <= 15
        assert {len(a) for a in one.addresses} <= {16}
        assert len(one.pci_address) <= 32


@THOROUGH
@given(st.text(max_size=60), st.text(string.digits + ", ", max_size=400))
def test_any_annotation_of_ports(skip: str, opaque: str) -> None:
    found, _ = ports_of({SKIP_PORTS: skip, OPAQUE_PORTS: opaque})
    assert len(found) <= 64
    assert all(0 < port < 65536 for port, _ in found)


_UID = st.sampled_from(
    [
        "",
        "a",
        "f" * 36,
        "-" * 36,
        "0" * 36,
        "0a0a0a0a-0000-0000-0000-00000000000g",
        "0a0a0a0a-0000-0000-0000-000000000001",
    ]
)
_TIME = st.sampled_from(["2026-01-01T00:00:00Z", "0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z"]) | st.none()


def _objects(shape: Any) -> st.SearchStrategy[Any]:
    """Values of the types of an API object, most of them nonsense."""
    return st.fixed_dictionaries({}, optional=shape)


_META = _objects(
    {
        "name": _TEXT,
        "namespace": _TEXT,
        "uid": _UID,
        "deletionTimestamp": _TIME,
        "deletionGracePeriodSeconds": st.integers(-(2**63), 2**63 - 1),
        "labels": st.dictionaries(_TEXT, _TEXT, max_size=3) | st.none(),
        "annotations": st.dictionaries(
            st.sampled_from([*ANNOTATIONS, WANTED, CONFIG_HASH, SKIP_PORTS]), _TEXT, max_size=3
        )
        | st.none(),
        "ownerReferences": st.lists(
            st.fixed_dictionaries({"kind": _TEXT, "name": _TEXT, "controller": st.booleans()}), max_size=2
        ),
    }
)
_POD = st.fixed_dictionaries(
    {"metadata": _META},
    optional={
        "spec": _objects({"nodeName": _TEXT, "hostNetwork": st.booleans()}),
        "status": _objects(
            {
                "phase": _TEXT,
                "podIP": _TEXT,
                "startTime": _TIME,
                "podIPs": st.lists(_objects({"ip": _TEXT}), max_size=20),
                "conditions": st.lists(
                    _objects({"type": _TEXT, "status": _TEXT, "lastTransitionTime": _TIME}), max_size=2
                ),
            }
        ),
    },
)
_SERVICE = st.fixed_dictionaries(
    {"metadata": _META},
    optional={
        "spec": _objects(
            {
                "clusterIP": _TEXT,
                "clusterIPs": st.lists(_TEXT, max_size=3),
                "externalIPs": st.lists(_TEXT, max_size=3),
                "ports": st.lists(
                    _objects({"port": st.integers(), "protocol": _TEXT, "nodePort": st.integers()}),
                    max_size=3,
                ),
            }
        ),
        "status": _objects(
            {"loadBalancer": _objects({"ingress": st.lists(_objects({"ip": _TEXT}), max_size=3)})}
        ),
    },
)
_SLICE = st.fixed_dictionaries(
    {"metadata": _META},
    optional={
        "endpoints": st.lists(
            _objects(
                {
                    "addresses": st.lists(_TEXT, max_size=3),
                    "targetRef": st.fixed_dictionaries({"kind": st.just("Pod"), "uid": _UID}),
                }
            ),
            max_size=3,
        ),
        "ports": st.lists(
            _objects({"port": st.integers() | st.none(), "protocol": _TEXT | st.none()}), max_size=3
        ),
    },
)
_NODE = st.fixed_dictionaries(
    {"metadata": _META},
    optional={"status": _objects({"addresses": st.lists(_objects({"address": _TEXT}), max_size=3)})},
)


def _taken(kind: type[Any], raw: Any) -> Any:
    """Decoded, or None where its types are others: such an object is left out and counted (Reflector)."""
    try:
        return msgspec.json.decode(json.dumps(raw).encode("utf-8", "replace"), type=kind)
    except (msgspec.MsgspecError, UnicodeError):
        return None


@THOROUGH
@given(
    st.lists(_POD, max_size=5),
    st.lists(_SERVICE, max_size=3),
    st.lists(_SLICE, max_size=3),
    st.lists(_NODE, max_size=2),
)
def test_any_objects_of_the_api(
    pods: list[Any], services: list[Any], slices: list[Any], nodes: list[Any]
) -> None:
    """One that raised would be asked for again for ever, and nothing behind it heard of."""
    clock = Clock()
    index = ClusterIndex(clock, wall=lambda: clock.now + 1.7e9)
    kept: list[tuple[Any, str]] = []
    kinds: tuple[tuple[Any, list[Any], Any, Any, Any], ...] = (
        (PodObject, pods, lambda o: pod_of(o, ("app",))[0], index.put_pod, index.delete_pod),
        (ServiceObject, services, service_of, index.put_service, index.delete_service),
        (SliceObject, slices, slice_of, index.put_slice, index.delete_slice),
        (NodeObject, nodes, node_of, index.put_node, index.delete_node),
    )
    for kind, items, made, put, drop in kinds:
        for raw in items:
            if (item := _taken(kind, raw)) is not None:
                put(made(item))
                kept.append((drop, item.metadata.uid))
    event(f"{len(kept)} of {len(pods) + len(services) + len(slices) + len(nodes)}")
    uids = {uid for drop, uid in kept if drop == index.delete_pod}
    assert index.sizes()["pods"] <= len(uids)
    assert index.known_pods() is not None
    index.marked_ports()
    index.take_changes()
    for drop, uid in kept:
        clock.now += 1
        drop(uid)
    clock.now += 1e6
    index.expire()
    assert index.sizes()["pods"] == 0
