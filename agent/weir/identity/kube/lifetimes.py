# SPDX-License-Identifier: Apache-2.0
"""Pods by uid and by (network, address), with the times in which they had their addresses."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from heapq import heappop, heappush

from weir.identity.kube.pods import Pod
from weir.identity.kube.stays import ALWAYS, NEVER, Holder, Stay, holder, settles
from weir.identity.kube.store import Address, Kept, Name, PodStore

#: More than this is told as "everything": the first list of a large cluster.
_MAX_NEWS = 8192


class Lifetimes:
    """Pods, also those that went less than ``grace`` seconds ago.

    ``clock`` is CLOCK_MONOTONIC, as the kernel side's times; ``wall`` is what the API's times are compared
    with when they are heard. What changed is collected until :meth:`take`. ``lost`` are addresses which
    somebody was known to have and has no more.
    """

    def __init__(self, clock: Callable[[], float], wall: Callable[[], float], grace: float) -> None:
        self._clock = clock
        self._wall = wall
        self._grace = grace
        self._store = PodStore()
        self._static: dict[str, str] = {}
        self._gone: dict[str, float] = {}  # until when they can be found
        self._due: deque[tuple[float, str]] = deque()
        self._settling: list[tuple[float, str]] = []
        self._addresses: set[bytes] = set()
        self._uids: set[str] = set()
        self._everything = False
        self.lost: set[bytes] = set()

    def __len__(self) -> int:
        return len(self._store)

    def put(self, pod: Pod) -> None:
        """A pod as it is now."""
        before = self._store.get(pod.uid)
        if before is not None and before.pod == pod and pod.uid not in self._gone:
            return
        keys = {*(before.pod.addresses if before else ()), *pod.addresses}
        held = {key: self.at(*key) for key in keys}
        stay = self._stay(pod, before)
        self._gone.pop(pod.uid, None)
        self._store.put(pod, stay)
        if pod.local_uid:
            self._static[pod.local_uid] = pod.uid
        self._changed(pod.uid, held)
        if any(not self.at(*key).sure for key in pod.addresses):
            heappush(self._settling, (settles(stay), pod.uid))

    def _stay(self, pod: Pod, before: Kept | None) -> Stay:
        now = self._clock()
        offset = now - self._wall()
        stay = Stay(now, min(now, pod.since + offset) if pod.since else now, pod.exact)
        if before is None:
            if pod.leaving < ALWAYS:
                stay.leaving = min(now, pod.leaving + offset)
            if not pod.running:
                stay.gone = NEVER  # its end was before we came: nobody knows when
            return stay
        old = before.stay
        if before.pod.addresses:
            stay.heard = old.heard
            if old.exact == pod.exact:
                stay.since = min(old.since, stay.since)
        if pod.leaving < ALWAYS or not pod.running:
            stay.leaving = min(old.leaving, now)
        if not pod.running:
            stay.gone = min(old.gone, now)
        return stay

    def delete(self, uid: str) -> None:
        """A pod is gone; it can be found for the grace time."""
        kept = self._store.get(uid)
        if kept is None or uid in self._gone:
            return
        now, (pod, stay) = self._clock(), kept
        held = {key: self.at(*key) for key in pod.addresses}
        stay.gone, stay.leaving = min(stay.gone, now), min(stay.leaving, now)
        self._store.put(pod, stay)
        self._gone[uid] = now + self._grace
        self._due.append((now + self._grace, uid))
        heappush(self._settling, (settles(stay), uid))
        self._changed(uid, held)

    def with_device(self, node: str, name: str) -> Pod | None:
        """Who has a virtual function of a node now, by its PCI or MAC address."""
        holders = self._store.named((node, name))
        return next((pod for pod in reversed(holders) if not self.gone(pod.uid)), None)

    def touch_job(self, job: Name) -> None:
        """The pods of a Job may have another name."""
        self._tell((), (pod.uid for pod in self._store.named(job)))

    def known(self) -> set[str]:
        """Uids of all that are not gone."""
        return {kept.pod.uid for kept in self._store} - self._gone.keys()

    def expire(self) -> None:
        """Forget pods whose grace time is over; what nobody was sure of is to be looked up again."""
        now = self._clock()
        while self._settling and self._settling[0][0] <= now:
            _, uid = heappop(self._settling)
            kept = self._store.get(uid)
            if kept is not None:
                self._tell(address for _, address in kept.pod.addresses)
        while self._due and self._due[0][0] <= now:
            until, uid = self._due.popleft()
            if self._gone.get(uid) == until:  # else it came back
                self._forget(uid)

    def _forget(self, uid: str) -> None:
        del self._gone[uid]
        kept = self._store.get(uid)
        if kept is None:
            return
        pod = kept.pod
        if self._static.get(pod.local_uid) == uid:
            del self._static[pod.local_uid]
        self._store.remove(uid)
        self._changed(uid, dict.fromkeys(pod.addresses, Holder(None, sure=True)))

    def pod(self, uid: str) -> Pod | None:
        """By uid, also a static pod's local one."""
        kept = self._store.get(uid) or self._store.get(self._static.get(uid, ""))
        return kept.pod if kept else None

    def numbered(self, number: int) -> Pod | None:
        """By its uid's number."""
        kept = self._store.numbered(number)
        return kept.pod if kept else None

    def gone(self, uid: str) -> bool:
        """Whether a pod that was known has ended or was deleted."""
        pod = self.pod(uid)
        return pod is not None and (not pod.running or pod.uid in self._gone)

    def at(self, network: str, address: bytes, born: float | None = None) -> Holder:
        """Who had an address when something to it began (seconds of ``clock``; None: who has it now)."""
        now = self._clock()
        return holder(self._store.at(network, address), now if born is None else born, now)

    def _changed(self, uid: str, held: dict[Address, Holder]) -> None:
        self._tell((key[1] for key in held), (uid,))
        for key, (pod, _) in held.items():
            if pod is not None:
                now = self.at(*key).pod
                if now is None or now.uid != pod.uid:
                    self.lost.add(key[1])

    def _tell(self, addresses: Iterable[bytes] = (), uids: Iterable[str] = ()) -> None:
        if not self._everything:
            self._addresses.update(addresses)
            self._uids.update(uids)
            if len(self._addresses) + len(self._uids) > _MAX_NEWS:
                self.tell_all()

    def tell_all(self) -> None:
        """All may have other names."""
        self.take()
        self._everything = True

    def take(self) -> tuple[set[bytes], set[str], bool]:
        """Addresses and uids that may have other names since the last time, and whether all may have."""
        taken = self._addresses, self._uids, self._everything
        self._addresses, self._uids, self._everything = set(), set(), False
        return taken
