# SPDX-License-Identifier: Apache-2.0
"""A kernel side scoped to a test's namespaces, and what it counted, by edge."""

from __future__ import annotations

import contextlib
import itertools
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import pytest

from tests.kernel.peers.netns import Netns
from weir.flows.drain import Drainer
from weir.flows.protocols import words
from weir.flows.types import Drain
from weir.kernel import side
from weir.kernel.btf import KERNEL_BTF, Btf
from weir.kernel.features import Features
from weir.kernel.layout import DESTINATION, SOURCE, TCP, UDP, Array
from weir.kernel.options import KernelOptions, default_folds
from weir.kernel.pins import Instance
from weir.kernel.side import KernelSide

_numbers = itertools.count(1)
VARIANTS = ("storage", "tracepoint", "kprobe")
_SUMS = (
    "sent_bytes", "received_bytes", "sent_datagrams", "received_datagrams", "opened", "closed", "live",
    "retransmitted", "resets_sent", "resets_received",
)  # fmt: skip


@dataclass(frozen=True)
class Counted:
    """Sums over the edges that were asked for; ``failed`` in the order of layout.FAILURES."""

    edges: int
    sent_bytes: int
    received_bytes: int
    sent_datagrams: int
    received_datagrams: int
    opened: int
    closed: int
    live: int
    retransmitted: int
    resets_sent: int
    resets_received: int
    failed: tuple[int, ...]
    rtt_samples: int
    connects: int
    connect_sum_us: int

    @property
    def payload(self) -> tuple[int, int]:
        """Bytes (sent, received)."""
        return self.sent_bytes, self.received_bytes


class Watch:
    """One loaded kernel side; ``instance`` is its own."""

    def __init__(self, instance: Instance, kernel: KernelSide) -> None:
        self.instance, self.kernel = instance, kernel
        self._drainer = Drainer(kernel)
        self._before: Array | None = None
        self._before_requests: Array | None = None

    def mark(self) -> None:
        """Count from here on: ports are given out again, so a module's tests may meet on one edge."""
        slots, requests = self.kernel.maps.slots, self.kernel.maps.requests
        self._before = slots.mapped(slots.count).copy()
        if requests:
            self._before_requests = requests.mapped(requests.count).copy()

    def drain(self) -> Drain:
        return self._drainer.drain()

    def detach(self, *names: str) -> None:
        """End programs' links (those that are there): what they would have seen is missed from now on."""
        for name in names:
            pins = list((self.instance.pins / "links").glob(f"{name}*"))
            for pin in pins:
                if pin.name == name or pin.name.startswith(f"{name}-"):
                    pin.unlink()
                    os.close(self.kernel._links.pop(pin.name))

    def missed(self) -> int:
        """State changes that the kernel kept from the program that had the best chance to see them."""
        copies = [p for p in self.kernel.programs() if p.name.startswith("tcp_state")]
        return min(p.recursion_misses for p in copies)

    def rows(self, netns: Netns | None, role: int | None, port: int | None, proto: int = TCP) -> Array:
        """Slots of one namespace, role, service port (None: of all)."""
        slots = self._since_mark(self.drain())
        key = slots["key"]
        chosen = key["proto"] == proto
        for name, wanted in (("netns", netns.inode if netns else None), ("role", role), ("port", port)):
            if wanted is not None:
                chosen &= key[name] == wanted
        found: Array = slots[chosen]
        return found

    def _since_mark(self, drain: Drain) -> Array:
        if self._before is None:
            return drain.slots
        slots, before = drain.slots.copy(), self._before[drain.indexes]
        for name in (*_SUMS, "failed", "rtt", "connect", "rtt_sum_us", "connect_sum_us"):
            slots[name] -= before[name]
        changed: Array = slots[(drain.slots["active_ns"] != before["active_ns"])]
        return changed

    def tcp(self, netns: Netns | None, role: int | None, port: int | None = None) -> Counted:
        return _sum(self.rows(netns, role, port))

    def udp(self, netns: Netns | None, role: int | None, port: int | None = None) -> Counted:
        return _sum(self.rows(netns, role, port, UDP))

    def ends(self, client: Netns, server: Netns, port: int) -> tuple[Counted, Counted]:
        """Of TCP connections to one port: the client's and the server's side."""
        return self.tcp(client, SOURCE, port), self.tcp(server, DESTINATION, port)

    def requests(self, netns: Netns | None, role: int, port: int | None) -> dict[tuple[str, str, int], int]:
        """Requests of one end by protocol, method and status (0: no answer), since the mark."""
        found: dict[tuple[str, str, int], int] = {}
        for row in self.request_rows(netns, role, port):
            key = row["key"]
            protocol, method, _, _ = words(*(int(key[n]) for n in ("protocol", "method", "status")))
            what = protocol, method, int(key["status"])
            found[what] = found.get(what, 0) + int(row["untimed"]) + int(row["duration"].sum())
        return {what: n for what, n in found.items() if n}

    def request_rows(self, netns: Netns | None, role: int, port: int | None) -> Array:
        """Request rows of one end, since the mark."""
        drain = self.drain()
        rows = drain.requests.copy()
        if self._before_requests is not None:
            before = self._before_requests[drain.request_indexes]
            for name in ("untimed", "sum_ns", "duration"):
                rows[name] -= before[name]
        edges = self.kernel.maps.slots.view["key"][rows["key"]["slot"]]
        chosen = edges["role"] == role
        for name, wanted in (("netns", netns.inode if netns else None), ("port", port)):
            if wanted is not None:
                chosen &= edges[name] == wanted
        found: Array = rows[chosen]
        return found

    def statements(self, netns: Netns, port: int, protocol: str) -> dict[tuple[str, int], int]:
        """Requests of one protocol by method and status (0: no answer), which both ends must have counted."""
        ends = []
        for role in (SOURCE, DESTINATION):
            found = self.requests(netns, role, port)
            assert {name for name, _, _ in found} <= {protocol}
            ends.append({(method, status): n for (_, method, status), n in found.items()})
        assert ends[0] == ends[1], ends
        return ends[0]

    def until(self, holds: Callable[[], bool], seconds: float = 5.0) -> None:
        """Wait for what the kernel does a moment later (a last ACK, a delayed close)."""
        end = time.monotonic() + seconds
        while not holds():
            if time.monotonic() > end:
                break  # the assertion that follows tells what was there
            time.sleep(0.02)


def _sum(rows: Array) -> Counted:
    sums = {name: int(rows[name].sum()) for name in _SUMS}
    failed = tuple(int(n) for n in rows["failed"].sum(axis=0)) if len(rows) else (0,) * 6
    return Counted(
        len(rows), **sums, failed=failed, rtt_samples=int(rows["rtt"].sum()),
        connects=int(rows["connect"].sum()), connect_sum_us=int(rows["connect_sum_us"].sum()),
    )  # fmt: skip


def possible(variant: str) -> str:
    """The variant, or a skip by name where this kernel cannot have it."""
    have = Features(Btf.from_file() if KERNEL_BTF.exists() else None).tcp_variants()
    if variant != "auto" and variant not in have:
        pytest.skip(f"TCP by {variant}: this kernel ({os.uname().release}) has only {', '.join(have)}")
    return variant


def _may_be_down(types: str, nat: object) -> set[str]:
    """Planes that this kernel cannot have, and that no test asked for by name."""
    if types == "headers":
        return {"discovery", "nat"}
    features = Features(Btf.from_file())
    return set() if nat != "auto" or features.kprobes or features.netfilter_links else {"nat"}


@contextlib.contextmanager
def watching(*netns: Netns, variant: str = "auto", **options: object) -> Iterator[Watch]:
    """Load for these namespaces only; everything is removed at the end.

    Without requests, which take as long to compile as all else, unless they are asked for (:func:`asking`).
    """
    possible(variant)
    instance, cgroup2 = side.ready(f"weirt-{os.getpid()}-{next(_numbers)}")
    wanted = KernelOptions(variant=variant, requests=0, folds=default_folds(), slots=1024,
                           netns=tuple(n.inode for n in netns))  # fmt: skip
    try:
        facts = side.load(instance, replace(wanted, **options), cgroup2)  # type: ignore[arg-type]
        down = {name for name, why in facts["planes"].items() if why}
        assert down <= _may_be_down(facts["types"], options.get("nat", "auto")), facts
        kernel = KernelSide(instance)
        try:
            yield Watch(instance, kernel)
        finally:
            kernel.close()
    finally:
        instance.remove()


def asking(*netns: Netns, **options: object) -> contextlib.AbstractContextManager[Watch]:
    """As :func:`watching`, with requests."""
    return watching(*netns, **{"requests": 8192, **options})  # type: ignore[arg-type]


def nothing_lost(watch: Watch, *allowed: str) -> None:
    """No event but the allowed ones was counted."""
    lost = {name: n for name, n in watch.drain().events.items() if n and name not in allowed}
    assert not lost, lost


def total(rows: Array, name: str) -> int:
    """Sum of one counter."""
    return int(np.sum(rows[name]))
