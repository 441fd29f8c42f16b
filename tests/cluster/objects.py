# SPDX-License-Identifier: Apache-2.0
"""API objects as controllers and kubelets write them."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

STATUS = "k8s.v1.cni.cncf.io/network-status"
_ALWAYS = dt.datetime(2000, 1, 1, tzinfo=dt.timezone.utc)


@dataclass(frozen=True)
class Interface:
    """One line of a pod's network status, as Multus writes it."""

    network: str
    interface: str
    address: str
    default: bool = False
    pci_address: str = ""

    def entry(self) -> dict[str, Any]:
        made: dict[str, Any] = {"name": self.network, "interface": self.interface, "ips": [self.address]}
        made |= {"mac": "02:00:00:00:00:07", "default": self.default, "dns": {}}
        if self.pci_address:
            made["device-info"] = {
                "type": "pci",
                "version": "1.1.0",
                "pci": {"pci-address": self.pci_address},
            }
        return made


def stamp(when: dt.datetime | None = None) -> str:
    """Whole seconds, as the API has them."""
    return (when or dt.datetime.now(dt.timezone.utc)).strftime("%Y-%m-%dT%H:%M:%SZ")


def owner(kind: str, name: str) -> dict[str, Any]:
    version = "batch/v1" if kind == "Job" else "v1" if kind == "Node" else "apps/v1"
    return {"apiVersion": version, "kind": kind, "name": name, "uid": f"uid-{name}", "controller": True}


def pod(
    namespace: str,
    name: str,
    node: str,
    owned: Mapping[str, Any] | None = None,
    *,
    labels: Mapping[str, str] | None = None,
    annotations: Mapping[str, str] | None = None,
    host_network: bool = False,
) -> dict[str, Any]:
    """What is created; its status comes with :func:`status`."""
    return {
        "metadata": {
            "namespace": namespace, "name": name, "labels": dict(labels or {}),
            "annotations": dict(annotations or {}), "ownerReferences": [owned] if owned else [],
        },
        "spec": {
            "nodeName": node, "hostNetwork": host_network, "terminationGracePeriodSeconds": 5,
            "containers": [{"name": "main", "image": "main"}],
        },
    }  # fmt: skip


def status(address: str, since: dt.datetime | None = None, phase: str = "Running") -> dict[str, Any]:
    """What a kubelet reports of a pod whose sandbox is ready."""
    when = stamp(since or _ALWAYS)
    condition = {"type": "PodReadyToStartContainers", "status": "True", "lastTransitionTime": when}
    ips = [{"ip": address}] if address else []
    return {"status": {"phase": phase, "podIP": address, "podIPs": ips, "startTime": when,
                       "conditions": [condition]}}  # fmt: skip


def networks(interfaces: Iterable[Interface]) -> dict[str, Any]:
    """The annotation that Multus adds."""
    return {"metadata": {"annotations": {STATUS: json.dumps([i.entry() for i in interfaces])}}}


def node(name: str) -> dict[str, Any]:
    return {"metadata": {"name": name}}


def node_status(*addresses: str) -> dict[str, Any]:
    return {"status": {"addresses": [{"type": "InternalIP", "address": a} for a in addresses]}}


def service(
    namespace: str, name: str, ports: Mapping[int, int], cluster_ip: str = "", node_port: int = 0
) -> dict[str, Any]:
    """``ports``: port of the service → of its pods."""
    listed = [{"name": f"p{port}", "port": port, "targetPort": target} for port, target in ports.items()]
    if node_port:
        listed[0]["nodePort"] = node_port
    spec: dict[str, Any] = {"ports": listed, "selector": {"app": name}}
    spec["type"] = "NodePort" if node_port else "ClusterIP"
    if cluster_ip:
        spec["clusterIP"] = cluster_ip
    return {"metadata": {"namespace": namespace, "name": name}, "spec": spec}


def job(name: str, cron: str = "") -> dict[str, Any]:
    """A Job, that of a CronJob if that is named."""
    owned = {
        "apiVersion": "batch/v1",
        "kind": "CronJob",
        "name": cron,
        "uid": f"uid-{cron}",
        "controller": True,
    }
    template = {"spec": {"restartPolicy": "Never", "containers": [{"name": "main", "image": "main"}]}}
    meta = {"name": name, "ownerReferences": [owned] if cron else []}
    return {"metadata": meta, "spec": {"template": template, "suspend": True}}


def slice_of(namespace: str, service: str, *uids: str, port: int = 0) -> dict[str, Any]:
    """What the endpoint slice controller makes of pods that are ready."""
    meta = {
        "name": f"{service}-abc12",
        "namespace": namespace,
        "labels": {"kubernetes.io/service-name": service},
    }
    endpoints = [
        {"addresses": [f"10.244.9.{number}"], "targetRef": {"kind": "Pod", "name": uid, "uid": uid}}
        for number, uid in enumerate(uids, 1)
    ]
    ports = [{"name": "", "port": port, "protocol": "TCP"}] if port else []
    return {"metadata": meta, "addressType": "IPv4", "endpoints": endpoints, "ports": ports}
