# SPDX-License-Identifier: Apache-2.0
"""The remote end: a pod's address, the edge seen from the other side, this host, a CIDR, else external."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Protocol

from weir.identity.cidrs import Cidrs, OwnAddresses, is_loopback
from weir.identity.types import EXTERNAL, LOCAL, NODE, UNKNOWN, Owner
from weir.kernel.layout import DESTINATION, SOURCE

#: (network, local address, remote address, service port, protocol, role); network None: not known
Path = tuple[str | None, bytes, bytes, int, int, int]


@dataclass(slots=True)
class Entry:
    """One edge, with its owners; ``shared``: its remote end was seen to be more than one workload.

    ``who`` is what the local owner was looked up by: (cgroup id, tgid, comm). ``dialled`` are address and
    port before translation, None where nothing was translated. ``born`` in seconds of CLOCK_MONOTONIC.
    ``pod`` is the uid of the remote pod, once it was found by its address. ``leaving``: the kernel finds
    this edge no more, nothing new will be counted here.
    """

    netns: int
    path: Path
    raddr_bits: int
    local: Owner
    who: tuple[int, int, str] = (0, 0, "")
    dialled: tuple[bytes, int] | None = None
    born: float = 0.0
    interface: str = ""
    remote: Owner = EXTERNAL
    found: Owner | None = None
    shared: bool = False
    pod: str = ""
    leaving: bool = False
    service: str = ""

    @property
    def network(self) -> str | None:
        """Network of the local address."""
        return self.path[0]

    @property
    def mirror(self) -> Path:
        """The same connection as the other end's socket has it."""
        network, laddr, raddr, port, proto, role = self.path
        return network, raddr, laddr, port, proto, SOURCE + DESTINATION - role


class Cluster(Protocol):
    """What the Kubernetes API knows (:class:`weir.identity.kube.names.ClusterNames`)."""

    def at(self, network: str, address: bytes, born: float | None = None) -> Found:
        """The pod that had an address when something to it began; UNKNOWN where it may be two."""

    def service(self, address: bytes, proto: int, port: int) -> str:
        """The service that is dialled by an address, or at a node's port; "" if none is."""

    def behind(self, address: bytes, proto: int, port: int) -> Owner | None:
        """Who answers for that service, where it is not known which of its endpoints does."""

    def served(self, uid: str, proto: int, port: int) -> str:
        """The service of a pod that was reached without translation, where that is to be told; else ""."""

    def endpoint(self, address: bytes, proto: int, port: int) -> Owner | None:
        """What a service's endpoint is called that is no pod."""

    def node_at(self, address: bytes) -> Owner | None:
        """The node that has an address."""

    def gone(self, uid: str) -> bool:
        """Whether a pod has ended: what it had may be somebody else's."""

    def alone(self, uid: str) -> bool:
        """Whether a pod has a network namespace of its own."""

    @property
    def here(self) -> Owner:
        """This node."""


class Found(Protocol):
    """Who is at an address."""

    @property
    def uid(self) -> str:
        """The pod's, "" for anything else."""

    @property
    def owner(self) -> Owner | None:
        """None: nobody we know."""


class Remotes:
    """Index of edges by (network, namespace, address), to name remote ends.

    A pod is found by its address in the network of the local address, as of the time when the edge began.
    Else the counterpart of an edge has its addresses mirrored, the same port and protocol and the
    opposite role, and lies in the same namespace; or, for addresses that are not loopback, in
    exactly one other namespace (the far end of a veth). Two namespaces that both match may be
    two networks with the same addresses, so neither is taken. If counterparts of several workloads
    match, it is one of them, which is all we know: ``LOCAL``. That stays so while the edge lives,
    even when one of them goes, since the edge's counts are of all of them.
    """

    def __init__(self, cidrs: Cidrs, own: OwnAddresses, cluster: Cluster | None = None) -> None:
        self._cidrs = cidrs
        self._own = own
        self._cluster = cluster
        self._edges: dict[Path, dict[int, dict[int, Entry]]] = {}
        self._addresses: dict[tuple[int, bytes], int] = {}
        self._by_remote: dict[bytes, dict[int, Entry]] = {}

    def add(self, slot: int, entry: Entry) -> None:
        self._edges.setdefault(entry.path, {}).setdefault(entry.netns, {})[slot] = entry
        key = entry.netns, entry.path[1]
        self._addresses[key] = self._addresses.get(key, 0) + 1
        if self._cluster:
            for address in _looked_up(entry):
                self._by_remote.setdefault(address, {})[slot] = entry

    def remove(self, slot: int, entry: Entry) -> None:
        by_netns = self._edges[entry.path]
        del by_netns[entry.netns][slot]
        if not by_netns[entry.netns]:
            del by_netns[entry.netns]
        if not by_netns:
            del self._edges[entry.path]
        key = entry.netns, entry.path[1]
        self._addresses[key] -= 1
        if not self._addresses[key]:
            del self._addresses[key]
        if self._cluster:
            for address in _looked_up(entry):
                slots = self._by_remote[address]
                del slots[slot]
                if not slots:
                    del self._by_remote[address]

    def waiting(self, paths: Iterable[Path]) -> Iterator[tuple[int, Entry]]:
        """Edges whose counterpart may be among these paths, with their slots."""
        for path in paths:
            for slots in self._edges.get(path, {}).values():
                yield from slots.items()

    def towards(self, addresses: Collection[bytes] | None) -> dict[int, Entry]:
        """Edges to these remote addresses (None: to all), by slot."""
        found: dict[int, Entry] = {}
        for address in self._by_remote if addresses is None else addresses:
            found |= self._by_remote.get(address, {})
        return found

    def resolve(self, entry: Entry) -> Owner:
        """Name the remote end of an edge and remember the answer in it."""
        cluster = self._cluster
        if cluster is not None:
            entry.service = self._service(cluster, entry)
            if entry.network is not None and entry.raddr_bits == 128 and self._pod(cluster, entry):
                untouched = not entry.service and entry.dialled is None
                if untouched and entry.network == "" and entry.path[5] == SOURCE:
                    entry.service = cluster.served(entry.pod, entry.path[4], entry.path[3])
                return entry.remote
        if entry.shared:
            return entry.remote
        found = self._counterpart(entry)
        if found is None:
            found = entry.found  # it was seen once: still the best we know
        elif entry.found is not None and _who(entry.found) != _who(found):
            found = LOCAL
        entry.shared = found is LOCAL
        entry.found = found
        entry.remote = found if found is not None else self._by_address(entry)
        return entry.remote

    def moved_on(self, entry: Entry) -> bool:
        """Whether the remote address is another pod's by now than when the edge began."""
        if self._cluster is None or entry.network is None or entry.raddr_bits != 128 or entry.leaving:
            return False
        return self._cluster.at(entry.network, entry.path[2]).uid not in ("", entry.pod)

    @staticmethod
    def _pod(cluster: Cluster, entry: Entry) -> bool:
        found = cluster.at(entry.network or "", entry.path[2], entry.born)
        if found.uid and found.owner is not None:
            entry.pod, entry.remote = found.uid, found.owner
        elif found.owner is not None and not entry.pod:
            entry.remote = found.owner
        return bool(entry.pod) or found.owner is not None

    @staticmethod
    def _service(cluster: Cluster, entry: Entry) -> str:
        """What was dialled: told by the translation or, where there was none, by the address itself."""
        _, _, raddr, port, proto, role = entry.path
        if entry.dialled is not None:
            return cluster.service(entry.dialled[0], proto, entry.dialled[1])
        return cluster.service(raddr, proto, port) if role == SOURCE else ""

    def _by_address(self, entry: Entry) -> Owner:
        remote, cluster = entry.path[2], self._cluster
        whole = entry.raddr_bits == 128
        if cluster is not None and whole and entry.network == "":
            _, _, _, port, proto, role = entry.path
            if role == SOURCE and (behind := cluster.behind(remote, proto, port)):
                return behind
            if node := cluster.node_at(remote):
                return node
        here = is_loopback(remote) or (entry.netns, remote) in self._addresses
        if whole and here and cluster is not None and cluster.alone(entry.local.uid):
            return replace(entry.local, process="", attribution="netns")  # nobody but the pod itself
        if whole and (here or remote in self._own):
            return NODE if cluster is None else cluster.here
        if named := self._cidrs.owner(remote, entry.raddr_bits):
            return named
        if cluster is None or entry.network is None:
            return EXTERNAL if cluster is None else UNKNOWN
        _, _, _, port, proto, role = entry.path
        dialled = whole and entry.network == "" and role == SOURCE
        return (cluster.endpoint(remote, proto, port) if dialled else None) or EXTERNAL

    def _counterpart(self, entry: Entry) -> Owner | None:
        if entry.raddr_bits != 128:
            return None
        by_netns = self._edges.get(entry.mirror)
        if by_netns is None:
            return None
        candidates = by_netns.get(entry.netns)
        if candidates is None:
            if len(by_netns) != 1 or is_loopback(entry.path[2]):
                return None
            (candidates,) = by_netns.values()
        cluster = self._cluster
        owners = (candidate.local for candidate in candidates.values())
        return _one(owner for owner in owners if not (cluster and owner.uid and cluster.gone(owner.uid)))


def _looked_up(entry: Entry) -> set[bytes]:
    """The addresses by which the cluster is asked about an edge."""
    return {entry.path[2], entry.dialled[0]} if entry.dialled else {entry.path[2]}


def _one(owners: Iterable[Owner]) -> Owner | None:
    """The only owner there is; LOCAL for several, None for one that has no name itself."""
    first: Owner | None = None
    for owner in owners:
        if first is None:
            first = owner
        elif _who(owner) != _who(first):
            return LOCAL
        elif owner.process != first.process:
            first = replace(first, process="")
    if first is None or not first.named:
        return None
    return replace(first, attribution="address")


def _who(owner: Owner) -> tuple[str, str, str, str, str]:
    return owner.kind, owner.namespace, owner.workload, owner.uid or owner.pod, owner.container_id
