# SPDX-License-Identifier: Apache-2.0
"""A large cluster's objects, written into etcd as the API server would have written them.

One pod, node and EndpointSlice are created through the API server; their stored bytes are templates in which
names of the same length are replaced. 150,000 creations through the API would take an hour.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Iterator
from typing import Any

from kubernetes.client import ApiClient

from tests.cluster import objects
from tests.cluster.control import ControlPlane

_BATCH = 100
NODE = "ip-10-100-100-100.eu-central-1.compute.internal"
_NAMESPACE, _SERVICE, _HASH, _SUFFIX, _IP = (
    "team-000",
    "service-00000",
    "6f7d9c8b54",
    "x2x2x",
    "10.100.100.100",
)
_CLUSTER_IP = "10.96.100.100"
PER_NODE, PER_SERVICE = 30, 30
Put = tuple[bytes, bytes]


def node_name(number: int) -> str:
    return NODE.replace(
        "100-100-100", f"{100 + number // 22500 % 150}-{100 + number // 150 % 150}-{100 + number % 150}"
    )


def address(number: int) -> str:
    return f"10.{100 + number // 24336}.{100 + number // 156 % 156}.{100 + number % 156}"


def _uid(kind: str, number: int) -> str:
    return f"{number:08x}-{kind}-4a1b-8c2d-3e4f5a6b7c8d"


def _pod_template() -> dict[str, Any]:
    """As large as pods of real clusters are."""
    env = [{"name": f"SETTING_{n}", "value": f"value-of-setting-{n}"} for n in range(20)]
    probe = {"httpGet": {"path": "/healthz", "port": 8080}, "periodSeconds": 10}
    container = {
        "image": "registry.example/team/service:1.2.3", "env": env, "livenessProbe": probe,
        "readinessProbe": probe, "ports": [{"containerPort": 8080, "name": "http"}],
        "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"memory": "256Mi"}},
        "volumeMounts": [{"name": "config", "mountPath": "/etc/service"}],
    }  # fmt: skip
    made = objects.pod(
        _NAMESPACE,
        f"{_SERVICE}-{_HASH}-{_SUFFIX}",
        NODE,
        objects.owner("ReplicaSet", f"{_SERVICE}-{_HASH}"),
        labels={"app.kubernetes.io/name": _SERVICE, "pod-template-hash": _HASH},
        annotations={"prometheus.io/scrape": "true", "example.com/turn": "turn-0"},
    )
    made["spec"]["containers"] = [{"name": name, **container} for name in ("main", "second")]
    made["spec"]["volumes"] = [{"name": "config", "configMap": {"name": "service-config"}}]
    return made


class Town:
    """Objects of a cluster with so many nodes; 30 pods a node and 30 pods a service."""

    def __init__(self, control: ControlPlane, nodes: int) -> None:
        self._control = control
        self.nodes = nodes
        self.pods = nodes * PER_NODE
        self.services = self.pods // PER_SERVICE
        self._life = [0] * self.pods
        self._templates: dict[str, tuple[bytes, str]] = {}  # (stored bytes, uid)
        self._slice_pods = [f"{n:02d}345678-0000-4000-8000-000000000000" for n in range(PER_SERVICE)]
        self._make_templates()

    def _make_templates(self) -> None:
        api, plain = self._control.api, ApiClient().sanitize_for_serialization
        api.create_namespace({"metadata": {"name": _NAMESPACE}})
        node = api.create_node(objects.node(NODE))
        api.patch_node_status(NODE, objects.node_status(_IP))
        made = _pod_template()
        name = made["metadata"]["name"]
        api.create_namespaced_pod(_NAMESPACE, made)
        status = objects.status(_IP)
        status["status"]["conditions"] += [
            {"type": kind, "status": "True", "lastTransitionTime": objects.stamp()}
            for kind in ("Initialized", "Ready", "ContainersReady", "PodScheduled")
        ]
        pod = api.patch_namespaced_pod_status(name, _NAMESPACE, status)
        self.bytes_of_a_pod = len(json.dumps(plain(pod)))
        service = api.create_namespaced_service(
            _NAMESPACE, objects.service(_NAMESPACE, _SERVICE, {80: 8080}, _CLUSTER_IP)
        )
        self._control.slice(objects.slice_of(_NAMESPACE, _SERVICE, *self._slice_pods))
        for kind, prefix, uid in (
            ("pod", f"/registry/pods/{_NAMESPACE}/", pod.metadata.uid),
            ("node", "/registry/minions/", node.metadata.uid),
            ("service", f"/registry/services/specs/{_NAMESPACE}/", service.metadata.uid),
            ("slice", f"/registry/endpointslices/{_NAMESPACE}/", ""),
        ):
            asked = {"key": _b64(prefix.encode()), "range_end": _b64(prefix.encode() + b"\xff"), "limit": 1}
            found = self._control.etcd("/v3/kv/range", asked)["kvs"][0]
            self._templates[kind] = base64.b64decode(found["value"]), uid
        self._control.stop()  # it shall not see its templates go
        for prefix in (
            "/registry/pods/",
            "/registry/minions/",
            "/registry/endpointslices/",
            "/registry/services/specs/team",
        ):
            asked = {"key": _b64(prefix.encode()), "range_end": _b64(prefix.encode() + b"\xff")}
            self._control.etcd("/v3/kv/deleterange", asked)

    def _made(self, kind: str, uid: str, *pairs: tuple[str, str]) -> bytes:
        template, old = self._templates[kind]
        return _replaced(template, *pairs, *(((old, uid),) if old else ()))

    def _name(self, number: int) -> tuple[str, str, str]:
        service = f"service-{number // PER_SERVICE:05}"
        return service, f"{number // PER_SERVICE:010x}", f"{self._life[number]:02x}{number % PER_SERVICE:03}"

    def key(self, number: int) -> bytes:
        service, digest, suffix = self._name(number)
        return f"/registry/pods/team-{number // PER_SERVICE % 500:03}/{service}-{digest}-{suffix}".encode()

    def uid(self, number: int) -> str:
        return _uid(f"{self._life[number]:04x}", number)

    def pod(self, number: int, turn: int = 0) -> Put:
        service, digest, suffix = self._name(number)
        return self.key(number), self._made(
            "pod", self.uid(number), (_SERVICE, service), (_HASH, digest), (f"-{_SUFFIX}", f"-{suffix}"),
            (_NAMESPACE, f"team-{number // PER_SERVICE % 500:03}"), (NODE, node_name(number // PER_NODE)),
            (_IP, address(number)), ("turn-0", f"turn-{turn}"),
        )  # fmt: skip

    def next_life(self, number: int) -> None:
        self._life[number] = (self._life[number] + 1) % 256

    def _objects(self) -> Iterator[Put]:
        for number in range(self.nodes):
            name = node_name(number)
            yield (
                f"/registry/minions/{name}".encode(),
                self._made(
                    "node",
                    _uid("aaaa", number),
                    (NODE, name),
                    (_IP, address(number).replace("10.", "11.", 1)),
                ),
            )
        yield from (self.pod(number) for number in range(self.pods))
        for number in range(self.services):
            service, namespace = f"service-{number:05}", f"team-{number % 500:03}"
            names = (_SERVICE, service), (_NAMESPACE, namespace)
            first = number * PER_SERVICE
            uids = [(old, self.uid(first + at)) for at, old in enumerate(self._slice_pods)]
            yield (
                f"/registry/endpointslices/{namespace}/{service}-abc12".encode(),
                self._made("slice", "", *names, *uids),
            )
            dialled = f"10.96.{100 + number // 156}.{100 + number % 156}"
            yield (
                f"/registry/services/specs/{namespace}/{service}".encode(),
                self._made("service", _uid("cccc", number), *names, (_CLUSTER_IP, dialled)),
            )

    def fill(self) -> None:
        """Write all."""
        batch: list[Put] = []
        for item in self._objects():
            batch.append(item)
            if len(batch) == _BATCH:
                self.write(batch)
                batch = []
        self.write(batch)

    def write(self, puts: Iterable[Put], deletes: Iterable[bytes] = ()) -> None:
        """One transaction of etcd."""
        operations: list[dict[str, Any]] = [
            {"requestPut": {"key": _b64(key), "value": _b64(value)}} for key, value in puts
        ]
        operations += [{"requestDeleteRange": {"key": _b64(key)}} for key in deletes]
        if operations:
            self._control.etcd("/v3/kv/txn", {"success": operations})

    def lives(self, numbers: range) -> int:
        """Each of these pods is replaced by another with its address, and changes twice otherwise; events."""
        old = [self.key(number) for number in numbers]
        for number in numbers:
            self.next_life(number)
        self.write((), old)
        for turn in range(3):
            self.write([self.pod(number, turn) for number in numbers])
        return 4 * len(numbers)


def _replaced(template: bytes, *pairs: tuple[str, str]) -> bytes:
    for old, new in pairs:
        assert len(old) == len(new), (old, new)
        template = template.replace(old.encode(), new.encode())
    return template


def _b64(raw: bytes) -> str:
    return base64.b64encode(raw).decode()
