# SPDX-License-Identifier: Apache-2.0
"""Rows of the views and of the JSON API: plain values, one row a pair or a live connection.

The JSON schema is stable: keys are only added. Every key is there in every row; ``null`` means
that the value is not known. The keys are the fields of :class:`EdgeRow` and :class:`ConnectionRow`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any, Protocol

import numpy as np

from weir.identity.types import Ends, Owner
from weir.kernel.layout import FAILURES, UDP, Array
from weir.views import columns
from weir.views.schema import from_plain

Json = dict[str, Any]


class Edges(Protocol):
    """What rows need of a snapshot (``aggregate.Snapshot`` is one)."""

    @property
    def monotonic_ns(self) -> int:
        """When it was taken, CLOCK_MONOTONIC."""

    @property
    def edges(self) -> Array:
        """Rows of dtype SLOT, shape (n,)."""

    @property
    def owners(self) -> tuple[Ends, ...]:
        """Owners (local, remote) of each row."""


@dataclass(frozen=True)
class EdgeRow:
    """One pair: a local end and whom it talks to on one service port.

    ==================== ====== ======================================================================
    key                  unit   meaning
    ==================== ====== ======================================================================
    id                          opaque, the same as long as the pair is counted
    workload                    local end: container, else systemd unit, else process
    kind                        what ``workload`` is: container, unit, process, overflow, none or, of a
                                pod, what made it: deployment, statefulset, daemonset, job, pod, …
    namespace, pod              of the local end, "" if none; the pod's uid where its name is not known
    container_id                full id, "" if none
    runtime                     docker, containerd, cri-o, podman, "" if none
    unit                        systemd unit, "" if none
    process                     process name, "" if not known
    pid                         process of the first connection, null if not known
    remote_workload             remote end, as ``workload``; "external" if it is none of ours
    remote_kind                 as ``kind``, or cidr, service, node, external
    remote_namespace
    remote_pod
    attribution                 how the remote end was named: cgroup, process, address, node, none
    service                     service that was dialled, "" if none
    dialled_address             what was dialled, where that was translated, else ""
    dialled_port                0 where nothing was translated
    network_name                secondary network of the local address, "" for the default one
    interface                   the pod's, where its network status tells
    role                        source (the local end opened it) or destination; "" if not known
    family                      4 or 6
    protocol                    tcp or udp; "" for the overflow row
    local_address               text
    remote_address              text; CIDR where addresses are folded into it, "*" for all of them
    port                        service port: remote one of a source, local one of a destination
    netns                       inode number of the network namespace
    cgroup                      cgroup v2 id
    sent_bytes           bytes  payload that left the local end
    received_bytes       bytes  payload that reached the local end
    sent_datagrams              UDP only
    received_datagrams          UDP only
    live                        TCP connections established now
    opened                      TCP connections established since Weir looks
    closed                      of these and of older ones: ended
    failed                      TCP connects that failed, by reason: refused, timeout, unreachable,
                                reset, aborted, local
    retransmitted               TCP segments sent again
    resets_sent                 TCP
    resets_received             TCP
    rtt_p50_us, rtt_p99_us us   of the kernel's smoothed RTT, interpolated; null without samples
    age_seconds          s      since the pair was first seen; null if not known
    idle_seconds         s      since something was last counted; null if not known
    ==================== ====== ======================================================================
    """

    id: str
    workload: str
    kind: str
    namespace: str
    pod: str
    container_id: str
    runtime: str
    unit: str
    process: str
    pid: int | None
    remote_workload: str
    remote_kind: str
    remote_namespace: str
    remote_pod: str
    attribution: str
    service: str
    dialled_address: str
    dialled_port: int
    network_name: str
    interface: str
    role: str
    family: int
    protocol: str
    local_address: str
    remote_address: str
    port: int
    netns: int
    cgroup: int
    sent_bytes: int
    received_bytes: int
    sent_datagrams: int
    received_datagrams: int
    live: int
    opened: int
    closed: int
    failed: dict[str, int]
    retransmitted: int
    resets_sent: int
    resets_received: int
    rtt_p50_us: float | None
    rtt_p99_us: float | None
    age_seconds: float | None
    idle_seconds: float | None

    def to_json(self) -> Json:
        """Plain JSON types, keys in the order above."""
        return {name: getattr(self, name) for name in _EDGE_KEYS}

    @classmethod
    def from_json(cls, value: object) -> EdgeRow:
        """The row again; keys that are not known are passed over. ValueError says what is wrong."""
        return cls(**from_plain(cls, value))


@dataclass(frozen=True)
class ConnectionRow:
    """One live socket.

    ================= ====== ===============================================================
    key               unit   meaning
    ================= ====== ===============================================================
    id                       opaque, the same as long as the socket lives
    workload, kind           as in :class:`EdgeRow`
    namespace, pod           as in :class:`EdgeRow`
    container_id             full id, "" if none
    process                  process name, "" if not known
    pid                      null if not known
    role                     source or destination; "" if not known
    family                   4 or 6
    protocol                 tcp or udp
    state                    ESTABLISHED, CLOSE_WAIT, … (include/net/tcp_states.h); "" for UDP
    local_address            text
    local_port
    remote_address           text; of UDP the last peer
    remote_port
    service_port             remote port of a source, local one of a destination
    netns                    inode number of the network namespace
    sent_bytes        bytes  payload that left since Weir looks
    received_bytes    bytes  payload that came since Weir looks
    rtt_us            us     smoothed RTT; null if not known
    retransmitted            TCP segments sent again
    age_seconds       s      since Weir first saw it; null if not known
    ================= ====== ===============================================================
    """

    id: str
    workload: str
    kind: str
    namespace: str
    pod: str
    container_id: str
    process: str
    pid: int | None
    role: str
    family: int
    protocol: str
    state: str
    local_address: str
    local_port: int
    remote_address: str
    remote_port: int
    service_port: int
    netns: int
    sent_bytes: int
    received_bytes: int
    rtt_us: int | None
    retransmitted: int
    age_seconds: float | None

    def to_json(self) -> Json:
        """Plain JSON types, keys in the order above."""
        return {name: getattr(self, name) for name in _CONNECTION_KEYS}

    @classmethod
    def from_json(cls, value: object) -> ConnectionRow:
        """The row again; keys that are not known are passed over. ValueError says what is wrong."""
        return cls(**from_plain(cls, value))


_EDGE_KEYS = tuple(f.name for f in fields(EdgeRow))
_CONNECTION_KEYS = tuple(f.name for f in fields(ConnectionRow))
#: Fields that are the same column of SLOT or RECORD.
_SLOT_SAME = (
    "sent_bytes", "received_bytes", "sent_datagrams", "received_datagrams", "live", "opened", "closed",
    "retransmitted", "resets_sent", "resets_received",
)  # fmt: skip
_RECORD_SAME = ("family", "netns", "sent_bytes", "received_bytes", "retransmitted")


def edge_rows(snapshot: Edges) -> list[EdgeRow]:
    """One row for each edge of the snapshot, in its order."""
    slots = snapshot.edges
    if not len(slots):
        return []
    key = slots["key"]
    table: dict[str, Sequence[Any]] = {name: slots[name].tolist() for name in _SLOT_SAME}
    for name in ("family", "port", "netns", "cgroup"):
        table[name] = key[name].tolist()
    table["id"] = columns.opaque_ids([key, slots["born_ns"]])
    table["pid"] = [tgid or None for tgid in slots["tgid"].tolist()]
    table["role"] = [columns.ROLES.get(role, "") for role in key["role"].tolist()]
    table["protocol"] = [columns.PROTOCOLS.get(proto, "") for proto in key["proto"].tolist()]
    table["local_address"] = columns.addresses(key["laddr"])
    table["remote_address"] = columns.networks(key["raddr"], key["raddr_bits"])
    table["dialled_port"] = key["dialled_port"].tolist()
    dialled = zip(columns.addresses(key["dialled"]), table["dialled_port"], strict=True)
    table["dialled_address"] = [address if port else "" for address, port in dialled]
    table["failed"] = [dict(zip(FAILURES, row, strict=True)) for row in slots["failed"].tolist()]
    table["rtt_p50_us"] = columns.percentiles_us(slots["rtt"], 0.50)
    table["rtt_p99_us"] = columns.percentiles_us(slots["rtt"], 0.99)
    table["age_seconds"] = columns.seconds_since(slots["born_ns"], snapshot.monotonic_ns)
    table["idle_seconds"] = columns.seconds_since(slots["active_ns"], snapshot.monotonic_ns)
    comms = columns.names(key["comm"])
    owners = zip(snapshot.owners, comms, strict=True)
    return [
        EdgeRow(**_owned(ends.local, comm), runtime=ends.local.runtime, unit=ends.local.unit,
                remote_workload=ends.remote.workload, remote_kind=ends.remote.kind,
                remote_namespace=ends.remote.namespace, remote_pod=ends.remote.pod,
                attribution=ends.remote.attribution, service=ends.service,
                network_name=ends.network_name, interface=ends.interface, **row)
        for (ends, comm), row in zip(owners, _by_row(table), strict=True)
    ]  # fmt: skip


def connection_rows(
    records: Array, owner_of: Callable[[np.void], Owner], monotonic_ns: int
) -> list[ConnectionRow]:
    """One row for each record (dtype RECORD, shape (n,)), in its order.

    ``monotonic_ns`` is now on CLOCK_MONOTONIC. Ids come from what is shown, never from the kernel's
    address of the socket.
    """
    if not len(records):
        return []
    table: dict[str, Sequence[Any]] = {name: records[name].tolist() for name in _RECORD_SAME}
    roles = table["role"] = [columns.ROLES.get(role, "") for role in records["role"].tolist()]
    table["id"] = _connection_ids(records)
    table["pid"] = [tgid or None for tgid in records["tgid"].tolist()]
    table["protocol"] = [columns.PROTOCOLS.get(proto, "") for proto in records["proto"].tolist()]
    table["state"] = [columns.state_name(number) for number in records["state"].tolist()]
    table["local_address"] = columns.addresses(records["laddr"])
    table["remote_address"] = columns.addresses(records["raddr"])
    table["local_port"], table["remote_port"] = records["lport"].tolist(), records["rport"].tolist()
    ends = zip(roles, table["local_port"], table["remote_port"], strict=True)
    table["service_port"] = [local if role == "destination" else remote for role, local, remote in ends]
    table["rtt_us"] = [rtt or None for rtt in records["srtt_us"].tolist()]
    table["age_seconds"] = columns.seconds_since(records["born_ns"], monotonic_ns)
    comms = columns.names(records["comm"])
    return [
        ConnectionRow(**_owned(owner_of(record), comm), **row)
        for record, comm, row in zip(records, comms, _by_row(table), strict=True)
    ]


def _connection_ids(records: Array) -> list[str]:
    """A UDP socket's peer changes with every datagram, so its own port and birth must do."""
    named = records[["laddr", "raddr", "rport", "lport", "netns", "proto", "born_ns"]].copy()
    udp = records["proto"] == UDP
    for name in ("laddr", "raddr", "rport"):
        named[name][udp] = 0
    return columns.opaque_ids([named[name] for name in named.dtype.names or ()])


def _by_row(table: dict[str, Sequence[Any]]) -> list[Json]:
    keys = tuple(table)
    return [dict(zip(keys, values, strict=True)) for values in zip(*table.values(), strict=True)]


def _owned(owner: Owner, comm: str) -> Json:
    return {
        "workload": owner.workload,
        "kind": owner.kind,
        "namespace": owner.namespace,
        "pod": owner.pod,
        "container_id": owner.container_id,
        "process": owner.process or comm,
    }
