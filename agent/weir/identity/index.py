# SPDX-License-Identifier: Apache-2.0
"""Identity: what is new in a drain, and who is at both ends of every edge."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from weir.flows.tracker import Tracker
from weir.flows.types import Drain
from weir.identity.cgroups import CgroupPaths, find_cgroup2
from weir.identity.cidrs import Cidrs, OwnAddresses, is_loopback
from weir.identity.local import LocalOwners
from weir.identity.podlogs import LocalPods
from weir.identity.process import Processes
from weir.identity.remote import Entry, Remotes
from weir.identity.runtimes import ContainerNames, Roots
from weir.identity.types import OVERFLOW, Ends, Observed, Owner
from weir.kernel.layout import EDGE, RETIRING

if TYPE_CHECKING:  # it needs msgspec, which only clusters do
    from weir.identity.kube.names import ClusterNames

Rows = NDArray[np.intp]


def _known(named: Owner, pods: LocalPods) -> Owner:
    """What the API has no name for, or not yet, may have one on the node."""
    return named if named.namespace else pods.named(named)


class Identity:
    """Owners of both ends of every edge of the last drain.

    Work is done for new edges, for those whose counterparts are new, and for those that the Kubernetes API
    told something about; a drain with nothing new costs a few vectorised comparisons.
    """

    def __init__(
        self, local: LocalOwners, cidrs: Cidrs, own: OwnAddresses, cluster: ClusterNames | None = None
    ) -> None:
        self._local = local
        self._cluster = cluster
        self._remotes = Remotes(cidrs, own, cluster)
        self._tracker = Tracker()
        self._entries: dict[int, Entry] = {}
        self._slots: dict[bytes, int] = {}
        self._keys: dict[int, bytes] = {}
        self._by_pod: dict[str, set[int]] = {}
        #: Slots of the last drain whose remote address has gone to another pod: nothing new belongs there.
        self.stale: list[int] = []

    @classmethod
    def for_host(
        cls,
        cidrs: Cidrs | None = None,
        *,
        cluster: ClusterNames | None = None,
        proc: Path = Path("/proc"),
        cgroup2: Path | None = None,
        roots: Roots | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> Identity:
        """Build it for a host, in a cluster or not; ``cgroup2`` is found where it is not given."""
        roots = roots or Roots.found(proc)
        pods = LocalPods(roots.pods, clock)
        local = LocalOwners(
            CgroupPaths(cgroup2 or find_cgroup2(proc), clock),
            ContainerNames(roots, clock),
            Processes(proc, clock),
            (lambda bare: _known(cluster.local(bare), pods)) if cluster else pods.named,
        )
        return cls(local, cidrs or Cidrs(), OwnAddresses(clock), cluster)

    def observe(self, drain: Drain) -> Observed:
        """Take in one drain; once per drain, before :meth:`ends` and :meth:`at`."""
        self._local.begin()
        new, gone = self._tracker.diff(drain.indexes, drain.slots["generation"])
        for slot in gone.tolist():
            self._forget(slot)
        added = self._learn(drain, new) if len(new) else {}
        again = self._told(drain, added) if self._cluster else {}
        relabelled = self._resolve(added, again)
        self.stale = sorted(slot for slot, e in (again | added).items() if self._remotes.moved_on(e))
        return Observed(new, gone, np.array(sorted(relabelled), np.intp))

    def at(self, slot: int) -> Ends:
        """Both ends of the edge in a slot of the last drain; KeyError when not in it."""
        return Ends(OVERFLOW, OVERFLOW) if slot == 0 else _ends(self._entries[slot])

    def ends(self, edge: np.void, tgid: int) -> Ends:
        """Both ends of an EDGE row; one that is in no slot is looked up on its own."""
        key = edge.tobytes()
        slot = self._slots.get(key)
        if slot is not None:
            return self.at(slot)
        entry = self._entry(np.array([edge], EDGE)[0], tgid, time.monotonic())
        self._remotes.resolve(entry)
        return _ends(entry)

    def owner(self, cgroup: int, tgid: int, comm: str) -> Owner:
        """Owner of a local socket by its cgroup id, process id and process name."""
        return self._local.owner(cgroup, tgid, comm)

    def evictions(self) -> Mapping[str, int]:
        """Entries that bounded caches pushed out, by cache."""
        return {
            "cgroup": self._local.paths.cache.evicted,
            "container": self._local.names.cache.evicted,
            "process": self._local.processes.cache.evicted,
        }

    def _learn(self, drain: Drain, new: Rows) -> dict[int, Entry]:
        rows = drain.slots[new]
        keys = np.ascontiguousarray(rows["key"])
        columns = rows["tgid"].tolist(), rows["born_ns"].tolist(), rows["state"].tolist()
        added = {}
        for row, slot, tgid, born, state in zip(
            range(len(keys)), drain.indexes[new].tolist(), *columns, strict=True
        ):
            if slot == 0:
                continue
            entry = self._entry(keys[row], tgid, born / 1e9)
            entry.leaving = state == RETIRING
            added[slot] = self._entries[slot] = entry
            self._keys[slot] = key = keys[row].tobytes()
            self._slots[key] = slot
            self._add(slot, entry)
        return added

    def _told(self, drain: Drain, added: dict[int, Entry]) -> dict[int, Entry]:
        """Edges of old that the API's news may be about, where they are on the way to other names."""
        assert self._cluster is not None
        changes = self._cluster.take_changes()
        uids = self._by_pod.keys() if changes.everything else changes.uids
        pods = {slot for uid in uids for slot in self._by_pod.get(uid, ())}
        for slot in pods - added.keys():
            self._local_again(slot, self._entries[slot])
        towards = self._remotes.towards(None if changes.everything else changes.addresses)
        retiring = set(drain.indexes[drain.slots["state"] == RETIRING].tolist())
        concerned = {slot: self._entries[slot] for slot in pods} | towards
        for slot, entry in concerned.items():
            entry.leaving = slot in retiring
        return {slot: entry for slot, entry in concerned.items() if slot not in added}

    def _local_again(self, slot: int, entry: Entry) -> None:
        """The local pod has other names, or is on other networks, than when the edge was seen first."""
        self._drop(slot, entry)
        local = self._local.owner(*entry.who)
        if local.uid == entry.local.uid:  # else its cgroup is gone
            entry.local = replace(local, process=entry.local.process)
        self._set_place(entry)
        self._add(slot, entry)

    def _resolve(self, added: dict[int, Entry], again: dict[int, Entry]) -> set[int]:
        for entry in added.values():
            self._remotes.resolve(entry)
        relabelled = set(again)
        for entry in again.values():
            self._remotes.resolve(entry)
        concerned = {entry.mirror for entry in added.values()} | {entry.mirror for entry in again.values()}
        for slot, entry in self._remotes.waiting(concerned):
            before = entry.remote
            if slot not in added and self._remotes.resolve(entry) != before:
                relabelled.add(slot)
        return relabelled

    def _add(self, slot: int, entry: Entry) -> None:
        self._remotes.add(slot, entry)
        if self._cluster and entry.local.uid:
            self._by_pod.setdefault(entry.local.uid, set()).add(slot)

    def _drop(self, slot: int, entry: Entry) -> None:
        self._remotes.remove(slot, entry)
        slots = self._by_pod.get(entry.local.uid)
        if slots:
            slots.discard(slot)
            if not slots:
                del self._by_pod[entry.local.uid]

    def _forget(self, slot: int) -> None:
        entry = self._entries.pop(slot, None)
        if entry is None:
            return
        self._drop(slot, entry)
        key = self._keys.pop(slot)
        if self._slots.get(key) == slot:
            del self._slots[key]

    def _entry(self, edge: np.void, tgid: int, born: float) -> Entry:
        laddr, raddr, dialled, cgroup, netns, port, _, proto, role, bits, dport, _, comm = tuple(edge.item())
        who = cgroup, tgid, bytes(comm).decode("utf-8", "replace")
        path = ("", bytes(laddr), bytes(raddr), port, proto, role)
        entry = Entry(netns, path, bits, self._local.owner(*who), who, born=born)
        if dport:
            entry.dialled = bytes(dialled), dport
        self._set_place(entry)
        return entry

    def _set_place(self, entry: Entry) -> None:
        """Which network the local address is on."""
        uid, address = entry.local.uid, entry.path[1]
        if self._cluster and uid and not is_loopback(address):
            place = self._cluster.place(uid, address)
            entry.path, entry.interface = (place.network, *entry.path[1:]), place.interface


def _ends(entry: Entry) -> Ends:
    return Ends(entry.local, entry.remote, entry.service, entry.network or "", entry.interface)
