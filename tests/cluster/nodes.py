# SPDX-License-Identifier: Apache-2.0
"""Nodes in network namespaces: pods on a bridge, secondary networks by macvlan, a fabric between nodes.

What a kubelet, a CNI plugin and Multus would do for a pod is done here: its namespace and interfaces, its
cgroup, its status and annotations in the API.
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tests.cluster import objects
from tests.cluster.control import ControlPlane
from tests.cluster.objects import Interface
from tests.kernel.peers.netns import Netns, cgroup_root, make_cgroup, make_netns, run

#: Forms of a pod's cgroup as kubelets make them; {pod}, {pod_} (with underscores) and {container}.
CGROUPS = {
    "systemd": "kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod{pod_}.slice"
    "/cri-containerd-{container}.scope",
    "cgroupfs": "kubepods/besteffort/pod{pod}/{container}",
    "guaranteed": "kubepods.slice/kubepods-pod{pod_}.slice/crio-{container}.scope",
    # A host with cgroup v1: its sockets are all in v2's root, so the process tells.
    "v1": "kubepods/burstable/pod{pod}/{container}",
}

#: A hierarchy of cgroup v1, where this host has it.
V1 = Path("/sys/fs/cgroup/pids")


@dataclass(frozen=True)
class Pod:
    """A pod that runs: its namespace, its cgroup, and who it is."""

    namespace: str
    name: str
    uid: str
    netns: Netns
    cgroup: Path
    secondary: Mapping[str, str] = field(default_factory=dict)  # network -> address

    def on(self, network: str) -> Netns:
        """The same namespace, spoken to by its address on a secondary network."""
        return replace(self.netns, v4=self.secondary[network])


@dataclass(frozen=True)
class Proxied:
    """A service as kube-proxy knows it; ``backends`` are (address, port)."""

    address: str
    port: int
    backends: Sequence[tuple[str, int]]
    node_port: int = 0
    protocol: str = "tcp"

    def rule(self, node: str) -> str:
        chosen = ", ".join(f"{n} : {address} . {port}" for n, (address, port) in enumerate(self.backends))
        to = f"dnat ip to numgen random mod {len(self.backends)} map {{ {chosen} }}"
        own = " ".join(f"{address}," for address, _ in self.backends).rstrip(",")
        head = f"meta l4proto {self.protocol} ip daddr {self.address} {self.protocol} dport {self.port}"
        rules = [
            f"add rule ip kube services {head} ip saddr {{ {own} }} ct mark set 0x4000",
            f"add rule ip kube services {head} {to}",
        ]
        if self.node_port:
            head = f"meta l4proto {self.protocol} ip daddr {node} {self.protocol} dport {self.node_port}"
            rules += [
                f"add rule ip kube services {head} ct mark set 0x4000",
                f"add rule ip kube services {head} {to}",
            ]
        return "\n".join(rules)


class Fabric:
    """What connects nodes: the node network, and the wires of the secondary ones."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self.netns = stack.enter_context(make_netns())
        self._numbers: dict[str, int] = {}
        self._bridge("nodes")

    def _bridge(self, name: str) -> None:
        run("ip", "-n", self.netns.name, "link", "add", name, "type", "bridge")
        run("ip", "-n", self.netns.name, "link", "set", name, "up")

    def plug(self, bridge: str, into: Netns, interface: str) -> None:
        """A veth from a bridge of the fabric into a namespace."""
        if bridge not in self._numbers:
            self._numbers[bridge] = 0
            if bridge != "nodes":
                self._bridge(bridge)
        self._numbers[bridge] += 1
        here = f"{bridge[:8]}{self._numbers[bridge]}"
        run("ip", "-n", self.netns.name, "link", "add", here, "type", "veth", "peer", "name", interface,
            "netns", into.name)  # fmt: skip
        run("ip", "-n", self.netns.name, "link", "set", here, "master", bridge, "up")
        run("ip", "-n", into.name, "link", "set", interface, "up")

    def outside(self) -> Netns:
        """Somebody on the node network who is no node."""
        netns = replace(self._stack.enter_context(make_netns()), v4="172.30.0.200", interface="eth0")
        self.plug("nodes", netns, "eth0")
        run("ip", "-n", netns.name, "addr", "add", f"{netns.v4}/24", "dev", "eth0")
        return netns


class Node:
    """A node: its pods' bridge, its address on the fabric, and the wires of secondary networks."""

    def __init__(self, cluster: Cluster, name: str, number: int) -> None:
        self.name, self.number, self.cluster = name, number, cluster
        self._stack = cluster.stack
        bare = self._stack.enter_context(make_netns())
        self.netns = replace(bare, v4=f"172.30.0.{number}", interface="eth0")
        self.pod_network = f"10.244.{number}"
        self._hosts = iter(range(2, 255))
        self._wires: set[str] = set()
        cluster.fabric.plug("nodes", self.netns, "eth0")
        self.ip("addr", "add", f"{self.netns.v4}/24", "dev", "eth0")
        self.ip("link", "add", "cni0", "type", "bridge")
        self.ip("addr", "add", f"{self.pod_network}.1/24", "dev", "cni0")
        self.ip("link", "set", "cni0", "up")
        self.netns.sysctl("net.ipv4.ip_forward", "1")
        self.netns.sysctl("net.bridge.bridge-nf-call-iptables", "1")  # as Kubernetes wants it of a node
        cluster.control.api.create_node(objects.node(name))
        cluster.control.api.patch_node_status(name, objects.node_status(self.netns.v4))

    def ip(self, *arguments: str) -> None:
        run("ip", "-n", self.netns.name, *arguments)

    def route(self, other: Node) -> None:
        """The way to another node's pods."""
        self.ip("route", "add", f"{other.pod_network}.0/24", "via", other.netns.v4)

    def proxy(self, services: Iterable[Proxied]) -> None:
        """What kube-proxy in nftables mode does: a backend by random choice, on the way in and out."""
        pre = "\n".join(service.rule(self.netns.v4) for service in services)
        leaving = f"ip saddr {self.pod_network}.0/24 oifname eth0 ip daddr != 10.244.0.0/16"
        self.netns.run("nft", "-f", "-", stdin=f"""
            add table ip kube
            flush table ip kube
            add chain ip kube services
            add chain ip kube pre {{ type nat hook prerouting priority -100; }}
            add chain ip kube out {{ type nat hook output priority -100; }}
            add chain ip kube post {{ type nat hook postrouting priority 100; }}
            add rule ip kube pre jump services
            add rule ip kube out jump services
            add rule ip kube post ct mark 0x4000 masquerade
            add rule ip kube post {leaving} masquerade
            {pre}""")  # fmt: skip

    def wire(self, network: str) -> str:
        """The interface that a secondary network's macvlans stand on."""
        interface = f"nic-{network}"
        if network not in self._wires:
            self._wires.add(network)
            self.cluster.fabric.plug(network, self.netns, interface)
        return interface

    def pod(
        self,
        name: str,
        owned: Mapping[str, Any] | None = None,
        *,
        namespace: str = "prod",
        networks: Sequence[tuple[str, str]] = (),
        labels: Mapping[str, str] | None = None,
        annotations: Mapping[str, str] | None = None,
        host_network: bool = False,
        form: str = "systemd",
        address: str = "",
        announce: bool = True,
    ) -> Pod:
        """A pod that runs; ``networks`` are (network, address in it), its interfaces net1, net2, ….

        ``announce`` False: the API knows the pod, but not that it runs nor its addresses.
        """
        made = objects.pod(namespace, name, self.name, owned, labels=labels, annotations=annotations,
                           host_network=host_network)  # fmt: skip
        uid = self.cluster.control.api.create_namespaced_pod(namespace, made).metadata.uid
        netns = self.netns if host_network else self._namespace(address)
        for number, (network, secondary) in enumerate(networks, 1):
            self._macvlan(netns, f"net{number}", network, secondary)
        local = (annotations or {}).get("kubernetes.io/config.hash", uid)
        below = CGROUPS[form].format(pod=local, pod_=local.replace("-", "_"), container=secrets.token_hex(32))
        root = V1 if form == "v1" else cgroup_root()
        assert root is not None
        cgroup = self._stack.enter_context(make_cgroup(root, below))
        pod = Pod(namespace, name, uid, netns, cgroup, dict(networks))
        if announce:
            self.announce(pod, networks)
        return pod

    def announce(self, pod: Pod, networks: Sequence[tuple[str, str]] = ()) -> None:
        """The status that kubelet and Multus write."""
        api = self.cluster.control.api
        if networks:
            found = [Interface("cbr0", "eth0", pod.netns.v4, default=True)]
            found += [Interface(f"{pod.namespace}/{network}", f"net{number}", address)
                      for number, (network, address) in enumerate(networks, 1)]  # fmt: skip
            api.patch_namespaced_pod(pod.name, pod.namespace, objects.networks(found))
        api.patch_namespaced_pod_status(pod.name, pod.namespace, objects.status(pod.netns.v4))

    def _namespace(self, address: str) -> Netns:
        host = next(self._hosts)
        bare = self._stack.enter_context(make_netns())
        netns = replace(bare, v4=address or f"{self.pod_network}.{host}", interface="eth0")
        self.ip("link", "add", f"veth{host}", "type", "veth", "peer", "name", "eth0", "netns", netns.name)
        self.ip("link", "set", f"veth{host}", "master", "cni0", "up")
        for command in (f"addr add {netns.v4}/24 dev eth0", "link set eth0 up",
                        f"route add default via {self.pod_network}.1"):  # fmt: skip
            run("ip", "-n", netns.name, *command.split())
        return netns

    def _macvlan(self, netns: Netns, interface: str, network: str, address: str) -> None:
        parent = self.wire(network)
        self.ip("link", "add", "link", parent, "name", "tmp0", "type", "macvlan", "mode", "bridge")
        self.ip("link", "set", "tmp0", "netns", netns.name, "name", interface)
        run("ip", "-n", netns.name, "addr", "add", f"{address}/24", "dev", interface)
        run("ip", "-n", netns.name, "link", "set", interface, "up")


class Cluster:
    """Nodes on one fabric, and the API that tells of them."""

    def __init__(self, control: ControlPlane, stack: ExitStack) -> None:
        self.control, self.stack = control, stack
        self.fabric = Fabric(stack)
        self.nodes: list[Node] = []

    def node(self, name: str) -> Node:
        made = Node(self, name, len(self.nodes) + 1)
        for other in self.nodes:
            made.route(other)
            other.route(made)
        self.nodes.append(made)
        return made


@contextlib.contextmanager
def make_cluster(control: ControlPlane) -> Iterator[Cluster]:
    """Everything in it goes away at the end, the API's objects too."""
    with ExitStack() as stack:
        stack.callback(_wipe, control)
        yield Cluster(control, stack)


def _wipe(control: ControlPlane) -> None:
    api = control.api
    for pod in api.list_pod_for_all_namespaces().items:
        api.delete_namespaced_pod(pod.metadata.name, pod.metadata.namespace, grace_period_seconds=0)
    for node in api.list_node().items:
        api.delete_node(node.metadata.name)
    for service in api.list_service_for_all_namespaces().items:
        if service.metadata.name != "kubernetes":
            api.delete_namespaced_service(service.metadata.name, service.metadata.namespace)
    control.wipe_slices()
    for job in control.batch.list_job_for_all_namespaces().items:
        control.batch.delete_namespaced_job(job.metadata.name, job.metadata.namespace,
                                            propagation_policy="Background")  # fmt: skip
