# SPDX-License-Identifier: Apache-2.0
"""Pods by uid and by (network, address), with the times in which they had their addresses."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from heapq import heappop, heappush

from weir.identity.kube.pods import Pod
from weir.identity.kube.stays import ALWAYS, NEVER, Holder, Stay, holder, settles
from weir.identity.kube.table import Table

Address = tuple[str, bytes]
#: (namespace, name) of a Job, or (node, PCI or MAC address) of a virtual function
Name = tuple[str, str]


def _keys(pod: Pod) -> Iterable[Address | Name]:
    yield from pod.addresses
    if pod.kind == "Job":
        yield pod.namespace, pod.workload
    for attachment in pod.attachments:
        for name in filter(None, (attachment.pci_address, attachment.mac)):
            yield pod.node, name


class Lifetimes:
    """Pods, also those that went less than ``grace`` seconds ago.

    ``clock`` is CLOCK_MONOTONIC, as the kernel side's times; ``wall`` is what the API's times are compared
    with when they are heard. What changed is collected until :meth:`take`: ``addresses`` and ``uids`` that
    may have other names, and ``lost`` addresses, which somebody was known to have and has no more.
    """

    def __init__(self, clock: Callable[[], float], wall: Callable[[], float], grace: float) -> None:
        self._clock = clock
        self._wall = wall
        self._grace = grace
        self.pods: Table[Pod, Address | Name] = Table(_keys)
        self._stays: dict[str, Stay] = {}
        self._static: dict[str, str] = {}
        self._gone: dict[str, float] = {}  # until when they can be found
        self._due: deque[tuple[float, str]] = deque()
        self._settling: list[tuple[float, str]] = []
        self.addresses: set[bytes] = set()
        self.uids: set[str] = set()
        self.lost: set[bytes] = set()

    def __len__(self) -> int:
        return len(self.pods)

    def put(self, pod: Pod) -> None:
        """A pod as it is now."""
        before = self.pods.by_uid.get(pod.uid)
        if before == pod and pod.uid not in self._gone:
            return
        keys = {*(before.addresses if before else ()), *pod.addresses}
        held = {key: self.at(*key) for key in keys}
        self._stays[pod.uid] = self._stay(pod, before)
        self._gone.pop(pod.uid, None)
        self.pods.put(pod)
        if pod.local_uid:
            self._static[pod.local_uid] = pod.uid
        self._changed(pod.uid, held)
        if any(not self.at(*key).sure for key in pod.addresses):
            heappush(self._settling, (settles(self._stays[pod.uid]), pod.uid))

    def _stay(self, pod: Pod, before: Pod | None) -> Stay:
        now = self._clock()
        offset = now - self._wall()
        stay = Stay(now, min(now, pod.since + offset) if pod.since else now, pod.exact)
        old = self._stays.get(pod.uid)
        if before is None or old is None:
            if pod.leaving < ALWAYS:
                stay.leaving = min(now, pod.leaving + offset)
            if not pod.running:
                stay.gone = NEVER  # its end was before we came: nobody knows when
            return stay
        if before.addresses:
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
        if uid not in self.pods.by_uid or uid in self._gone:
            return
        now, stay = self._clock(), self._stays[uid]
        held = {key: self.at(*key) for key in self.pods.by_uid[uid].addresses}
        stay.gone, stay.leaving = min(stay.gone, now), min(stay.leaving, now)
        self._gone[uid] = now + self._grace
        self._due.append((now + self._grace, uid))
        heappush(self._settling, (settles(stay), uid))
        self._changed(uid, held)

    def with_device(self, node: str, name: str) -> Pod | None:
        """Who has a virtual function of a node now, by its PCI or MAC address."""
        holders = self.pods.holders((node, name))
        return next((pod for pod in reversed(holders) if not self.gone(pod.uid)), None)

    def touch_job(self, job: Name) -> None:
        """The pods of a Job may have another name."""
        self.uids |= {pod.uid for pod in self.pods.holders(job)}

    def missing(self, uids: set[str], node: str | None) -> list[str]:
        """Pods (of one node, or all) that a list did not have."""
        return [
            uid for uid, pod in self.pods.by_uid.items()
            if uid not in uids and uid not in self._gone and (node is None or pod.node == node)
        ]  # fmt: skip

    def expire(self) -> None:
        """Forget pods whose grace time is over; what nobody was sure of is to be looked up again."""
        now = self._clock()
        while self._settling and self._settling[0][0] <= now:
            _, uid = heappop(self._settling)
            if uid in self.pods.by_uid:
                self.addresses |= {address for _, address in self.pods.by_uid[uid].addresses}
        while self._due and self._due[0][0] <= now:
            until, uid = self._due.popleft()
            if self._gone.get(uid) == until:  # else it came back
                self._forget(uid)

    def _forget(self, uid: str) -> None:
        del self._gone[uid]
        pod = self.pods.by_uid[uid]
        if self._static.get(pod.local_uid) == uid:
            del self._static[pod.local_uid]
        self.pods.remove(uid)
        del self._stays[uid]
        self._changed(uid, dict.fromkeys(pod.addresses, Holder(None, sure=True)))

    def pod(self, uid: str) -> Pod | None:
        """By uid, also a static pod's local one."""
        return self.pods.by_uid.get(uid) or self.pods.by_uid.get(self._static.get(uid, ""))

    def gone(self, uid: str) -> bool:
        """Whether a pod that was known has ended or was deleted."""
        pod = self.pod(uid)
        return pod is not None and (not pod.running or pod.uid in self._gone)

    def at(self, network: str, address: bytes, born: float | None = None) -> Holder:
        """Who had an address when something to it began (seconds of ``clock``; None: who has it now)."""
        pods = self.pods.holders((network, address))
        now = self._clock()
        stays = [(pod, self._stays[pod.uid]) for pod in pods]
        return holder(stays, now if born is None else born, now)

    def _changed(self, uid: str, held: dict[Address, Holder]) -> None:
        self.uids.add(uid)
        for key, (pod, _) in held.items():
            self.addresses.add(key[1])
            if pod is not None:
                now = self.at(*key).pod
                if now is None or now.uid != pod.uid:
                    self.lost.add(key[1])
