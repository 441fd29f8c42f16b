# SPDX-License-Identifier: Apache-2.0
"""The remote end: the edge seen from the other side, else this host, else a CIDR, else external."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from weir.identity.cidrs import Cidrs, OwnAddresses, is_loopback
from weir.identity.types import EXTERNAL, LOCAL, NODE, Owner
from weir.kernel.layout import DESTINATION, SOURCE

#: (local address, remote address, service port, protocol, role)
Path = tuple[bytes, bytes, int, int, int]


@dataclass(slots=True)
class Entry:
    """One edge, with its owners; ``shared``: its remote end was seen to be more than one workload."""

    netns: int
    path: Path
    raddr_bits: int
    local: Owner
    remote: Owner = EXTERNAL
    found: Owner | None = None
    shared: bool = False

    @property
    def mirror(self) -> Path:
        """The same connection as the other end's socket has it."""
        laddr, raddr, port, proto, role = self.path
        return raddr, laddr, port, proto, SOURCE + DESTINATION - role


class Remotes:
    """Index of edges by (namespace, address), to name remote ends.

    The counterpart of an edge has its addresses mirrored, the same port and protocol and the
    opposite role, and lies in the same namespace; or, for addresses that are not loopback, in
    exactly one other namespace (the far end of a veth). Two namespaces that both match may be
    two networks with the same addresses, so neither is taken. If counterparts of several workloads
    match, it is one of them, which is all we know: ``LOCAL``. That stays so while the edge lives,
    even when one of them goes, since the edge's counts are of all of them.
    """

    def __init__(self, cidrs: Cidrs, own: OwnAddresses) -> None:
        self._cidrs = cidrs
        self._own = own
        self._edges: dict[Path, dict[int, dict[int, Entry]]] = {}
        self._addresses: dict[tuple[int, bytes], int] = {}

    def add(self, slot: int, entry: Entry) -> None:
        self._edges.setdefault(entry.path, {}).setdefault(entry.netns, {})[slot] = entry
        key = entry.netns, entry.path[0]
        self._addresses[key] = self._addresses.get(key, 0) + 1

    def remove(self, slot: int, entry: Entry) -> None:
        by_netns = self._edges[entry.path]
        del by_netns[entry.netns][slot]
        if not by_netns[entry.netns]:
            del by_netns[entry.netns]
        if not by_netns:
            del self._edges[entry.path]
        key = entry.netns, entry.path[0]
        self._addresses[key] -= 1
        if not self._addresses[key]:
            del self._addresses[key]

    def waiting(self, paths: Iterable[Path]) -> Iterator[tuple[int, Entry]]:
        """Edges whose counterpart may be among these paths, with their slots."""
        for path in paths:
            for slots in self._edges.get(path, {}).values():
                yield from slots.items()

    def resolve(self, entry: Entry) -> Owner:
        """Name the remote end of an edge and remember the answer in it."""
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

    def _by_address(self, entry: Entry) -> Owner:
        remote = entry.path[1]
        if entry.raddr_bits == 128 and (
            is_loopback(remote) or (entry.netns, remote) in self._addresses or remote in self._own
        ):
            return NODE
        return self._cidrs.owner(remote, entry.raddr_bits) or EXTERNAL

    def _counterpart(self, entry: Entry) -> Owner | None:
        if entry.raddr_bits != 128:
            return None
        by_netns = self._edges.get(entry.mirror)
        if by_netns is None:
            return None
        candidates = by_netns.get(entry.netns)
        if candidates is None:
            if len(by_netns) != 1 or is_loopback(entry.path[1]):
                return None
            (candidates,) = by_netns.values()
        return _one(candidate.local for candidate in candidates.values())


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
    return owner.kind, owner.namespace, owner.workload, owner.pod, owner.container_id
