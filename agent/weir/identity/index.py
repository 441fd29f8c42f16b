# SPDX-License-Identifier: Apache-2.0
"""Identity: what is new in a drain, and who is at both ends of every edge."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from weir.flows.types import Drain
from weir.identity.cgroups import CgroupPaths, find_cgroup2
from weir.identity.cidrs import Cidrs, OwnAddresses
from weir.identity.containers import ContainerNames
from weir.identity.local import LocalOwners
from weir.identity.process import Processes
from weir.identity.remote import Entry, Remotes
from weir.identity.types import OVERFLOW, Ends, Observed, Owner
from weir.kernel.layout import EDGE, Array

Rows = NDArray[np.intp]


class Tracker:
    """Tells edges that are new and edges that are gone from slot numbers and generations."""

    def __init__(self) -> None:
        self._generation = np.full(1024, -1, np.int64)  # by slot number; -1: not in use

    def diff(self, indexes: NDArray[np.uint32], generation: Array) -> tuple[Rows, Rows]:
        """Return (row numbers of new edges, slot numbers of those gone), for arrays of shape (n,)."""
        slots = indexes.astype(np.intp)
        size = int(slots.max(initial=0)) + 1
        if size > len(self._generation):
            grown = np.full(max(size, 2 * len(self._generation)), -1, np.int64)
            grown[: len(self._generation)] = self._generation
            self._generation = grown
        current = np.full(len(self._generation), -1, np.int64)
        current[slots] = generation
        changed = current != self._generation
        gone = np.flatnonzero(changed & (self._generation >= 0))
        new = np.flatnonzero(changed[slots])
        self._generation = current
        return new, gone


class Identity:
    """Owners of both ends of every edge of the last drain.

    Work is done for new edges and for those whose counterparts are new; a drain with nothing new
    costs a few vectorised comparisons.
    """

    def __init__(self, local: LocalOwners, cidrs: Cidrs, own: OwnAddresses) -> None:
        self._local = local
        self._remotes = Remotes(cidrs, own)
        self._tracker = Tracker()
        self._entries: dict[int, Entry] = {}
        self._slots: dict[bytes, int] = {}
        self._keys: dict[int, bytes] = {}

    @classmethod
    def for_host(
        cls,
        cidrs: Cidrs | None = None,
        *,
        proc: Path = Path("/proc"),
        cgroup2: Path | None = None,
        docker: Path = Path("/var/lib/docker"),
        podman: Path = Path("/var/lib/containers"),
        clock: Callable[[], float] = time.monotonic,
    ) -> Identity:
        """Build it for a host without Kubernetes; ``cgroup2`` is found where it is not given."""
        local = LocalOwners(
            CgroupPaths(cgroup2 or find_cgroup2(proc), clock),
            ContainerNames(docker, podman, clock),
            Processes(proc, clock),
        )
        return cls(local, cidrs or Cidrs(), OwnAddresses(clock))

    def observe(self, drain: Drain) -> Observed:
        """Take in one drain; once per drain, before :meth:`ends` and :meth:`at`."""
        self._local.begin()
        new, gone = self._tracker.diff(drain.indexes, drain.slots["generation"])
        for slot in gone.tolist():
            self._forget(slot)
        added = self._learn(drain, new) if len(new) else {}
        relabelled = self._resolve(added)
        return Observed(new, gone, np.array(sorted(relabelled), np.intp))

    def at(self, slot: int) -> Ends:
        """Owners (local, remote) of the edge in a slot of the last drain; KeyError when not in it."""
        if slot == 0:
            return OVERFLOW, OVERFLOW
        entry = self._entries[slot]
        return entry.local, entry.remote

    def ends(self, edge: np.void, tgid: int) -> Ends:
        """Owners (local, remote) of an EDGE row; one that is in no slot is looked up on its own."""
        key = edge.tobytes()
        slot = self._slots.get(key)
        if slot is not None:
            return self.at(slot)
        entry = self._entry(np.array([edge], EDGE)[0], tgid)
        return entry.local, self._remotes.resolve(entry)

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
        keys = np.ascontiguousarray(drain.slots["key"][new])
        tgids = drain.slots["tgid"][new].tolist()
        added = {}
        for row, slot, tgid in zip(range(len(keys)), drain.indexes[new].tolist(), tgids, strict=True):
            if slot == 0:
                continue
            entry = self._entry(keys[row], tgid)
            added[slot] = self._entries[slot] = entry
            self._keys[slot] = key = keys[row].tobytes()
            self._slots[key] = slot
            self._remotes.add(slot, entry)
        return added

    def _resolve(self, added: dict[int, Entry]) -> set[int]:
        for entry in added.values():
            self._remotes.resolve(entry)
        relabelled = set()
        for slot, entry in self._remotes.waiting({entry.mirror for entry in added.values()}):
            before = entry.remote
            if slot not in added and self._remotes.resolve(entry) != before:
                relabelled.add(slot)
        return relabelled

    def _forget(self, slot: int) -> None:
        entry = self._entries.pop(slot, None)
        if entry is None:
            return
        self._remotes.remove(slot, entry)
        key = self._keys.pop(slot)
        if self._slots.get(key) == slot:
            del self._slots[key]

    def _entry(self, edge: np.void, tgid: int) -> Entry:
        laddr, raddr, cgroup, netns, port, _, proto, role, bits, _, comm = tuple(edge.item())
        local = self._local.owner(cgroup, tgid, bytes(comm).decode("utf-8", "replace"))
        path = (bytes(laddr), bytes(raddr), port, proto, role)
        return Entry(netns, path, bits, local)
