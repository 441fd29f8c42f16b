# SPDX-License-Identifier: Apache-2.0
"""The one table of every metric. Exposition, docs/metrics.md and dashboards are made from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from weir.kernel import layout
from weir.kernel.layout import FAILURES
from weir.labels import DURATION_LABELS, REQUEST_LABELS

Kind = Literal["counter", "gauge", "histogram", "summary"]

#: Which series a pair has: it carries TCP, it carries UDP, it opens TCP connections itself.
TCP_SHAPE, UDP_SHAPE, SOURCE_SHAPE = 1, 2, 4

#: Finite bucket bounds (``le``) of the histograms in microseconds: each is a bound of the kernel's buckets.
BOUNDS_US = tuple(1 << power for power in (*range(6, 21), 22, 24))
BUCKETS = len(BOUNDS_US) + 1

_SCALARS = (
    "tcp_sent_bytes",
    "tcp_received_bytes",
    "udp_sent_bytes",
    "udp_received_bytes",
    "udp_sent_datagrams",
    "udp_received_datagrams",
    "opened",
    "closed",
    "live",
    "retransmitted",
    "resets_sent",
    "resets_received",
    *(f"failed_{reason}" for reason in FAILURES),
    "rtt_sum_us",
    "connect_sum_us",
)
#: Column numbers of the counter matrix that aggregation sums: scalars, then the two histograms.
COLUMN = {name: number for number, name in enumerate(_SCALARS)}
RTT = slice(len(_SCALARS), len(_SCALARS) + BUCKETS)
CONNECT = slice(RTT.stop, RTT.stop + BUCKETS)
COLUMNS = CONNECT.stop
#: Finite bounds in seconds of the requests' durations, and the kernel's bucket that each one begins with.
DURATION_BOUNDS = tuple(2.0**power for power in range(-14, 5))
_DURATION_STARTS = (0, *(int(np.searchsorted(layout.duration_bounds(), b)) + 1 for b in DURATION_BOUNDS))


@dataclass(frozen=True)
class Metric:
    """One metric. ``name`` is what Prometheus shows; ``labels`` are those it has besides a pair's.

    Of pairs: ``columns`` has the matrix column of each series (``values`` their label values, if
    any; a histogram's column is its sum) and ``shape`` the pairs that have it. Of a histogram,
    ``buckets`` are its columns, which ``starts`` puts together (if it is given), ``bounds`` its finite
    bounds (``le``, seconds) and ``per_second`` the unit of its sum; ``native``: its columns are buckets of
    a native histogram.
    """

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    values: tuple[str, ...] = ()
    shape: int = 0
    buckets: slice | None = None
    bounds: tuple[float, ...] = tuple(bound / 1e6 for bound in BOUNDS_US)
    starts: tuple[int, ...] = ()
    per_second: float = 1e6
    native: bool = False
    default: bool = True

    @property
    def unit(self) -> str:
        """Base unit, from the name; "" for plain counts."""
        stem = self.name.removesuffix("_total")
        return next((unit for unit in ("bytes", "seconds") if stem.endswith(f"_{unit}")), "")

    @property
    def series(self) -> int:
        """Series of one pair."""
        return len(self.bounds) + 3 if self.kind == "histogram" else len(self.columns)


@dataclass(frozen=True)
class Matrix:
    """A matrix of counters that is summed by labels: its columns, and what is made of them.

    ``gauges`` are column numbers; ``labels`` those it has besides a pair's.
    """

    column: Mapping[str, int]
    width: int
    metrics: tuple[Metric, ...]
    labels: tuple[str, ...] = ()
    gauges: list[int] = field(default_factory=list)

    def series_of(self, shape: int) -> int:
        """Series that a pair of this shape has."""
        return sum(metric.series for metric in self.metrics if metric.shape & shape)


PAIR_METRICS = (
    Metric(
        "weir_tcp_sent_bytes_total",
        "counter",
        "TCP payload from source to destination, without retransmits and headers.",
        columns=("tcp_sent_bytes",),
        shape=TCP_SHAPE,
    ),
    Metric(
        "weir_tcp_received_bytes_total",
        "counter",
        "TCP payload from destination to source, without retransmits and headers.",
        columns=("tcp_received_bytes",),
        shape=TCP_SHAPE,
    ),
    Metric(
        "weir_udp_sent_bytes_total",
        "counter",
        "UDP payload from source to destination.",
        columns=("udp_sent_bytes",),
        shape=UDP_SHAPE,
    ),
    Metric(
        "weir_udp_received_bytes_total",
        "counter",
        "UDP payload from destination to source.",
        columns=("udp_received_bytes",),
        shape=UDP_SHAPE,
    ),
    Metric(
        "weir_udp_sent_datagrams_total",
        "counter",
        "UDP datagrams from source to destination.",
        columns=("udp_sent_datagrams",),
        shape=UDP_SHAPE,
    ),
    Metric(
        "weir_udp_received_datagrams_total",
        "counter",
        "UDP datagrams from destination to source.",
        columns=("udp_received_datagrams",),
        shape=UDP_SHAPE,
    ),
    Metric(
        "weir_tcp_connections_opened_total",
        "counter",
        "TCP connections established since Weir looks.",
        columns=("opened",),
        shape=TCP_SHAPE,
    ),
    Metric(
        "weir_tcp_connections_closed_total",
        "counter",
        "TCP connections ended, of those that were established.",
        columns=("closed",),
        shape=TCP_SHAPE,
    ),
    Metric(
        "weir_tcp_connections",
        "gauge",
        "TCP connections established now, those older than Weir included.",
        columns=("live",),
        shape=TCP_SHAPE,
    ),
    Metric(
        "weir_tcp_connect_failures_total",
        "counter",
        "TCP connects that did not get through. Reasons: refused (the far end answered with a reset), "
        "timeout (no answer), unreachable (ICMP: no route, host or port), "
        "reset (reset in the middle of the handshake), "
        "aborted (the application closed the socket while connecting), "
        "local (no local port was free).",
        labels=("reason",),
        columns=tuple(f"failed_{reason}" for reason in FAILURES),
        values=FAILURES,
        shape=SOURCE_SHAPE,
    ),
    Metric(
        "weir_tcp_retransmitted_segments_total",
        "counter",
        "TCP segments that the end that reports had to send again.",
        columns=("retransmitted",),
        shape=TCP_SHAPE,
    ),
    Metric(
        "weir_tcp_resets_total",
        "counter",
        "TCP resets. direction is sent from source to destination, received from destination to source.",
        labels=("direction",),
        columns=("resets_sent", "resets_received"),
        values=("sent", "received"),
        shape=TCP_SHAPE,
    ),
    Metric(
        "weir_tcp_rtt_seconds",
        "histogram",
        "Network round-trip time: samples of the kernel's own smoothed TCP RTT at the end that reports.",
        columns=("rtt_sum_us",),
        shape=TCP_SHAPE,
        buckets=RTT,
    ),
    Metric(
        "weir_tcp_connect_duration_seconds",
        "histogram",
        "From the SYN to the established TCP connection, as the source saw it.",
        columns=("connect_sum_us",),
        shape=SOURCE_SHAPE,
        buckets=CONNECT,
    ),
)

REQUEST_METRICS = (
    Metric(
        "weir_requests_total",
        "counter",
        "Requests that were answered, or whose connection ended before that.",
        columns=("requests",),
        shape=TCP_SHAPE,
    ),
)
DURATION_METRICS = (
    Metric(
        "weir_request_duration_seconds",
        "histogram",
        "From a request's first byte to the first byte of its answer, at the socket of the end that reports: "
        "reporter source: request latency, the way there and back included; destination: response time.",
        columns=("duration_sum",),
        shape=TCP_SHAPE,
        buckets=slice(1, 1 + layout.DURATIONS),
        bounds=DURATION_BOUNDS,
        starts=_DURATION_STARTS,
        per_second=1e9,
        native=True,
    ),
)
PAIRS = Matrix(COLUMN, COLUMNS, PAIR_METRICS, gauges=[COLUMN["live"]])
REQUESTS = Matrix({"requests": 0}, 1, REQUEST_METRICS, REQUEST_LABELS)
DURATIONS = Matrix({"duration_sum": 0}, 1 + layout.DURATIONS, DURATION_METRICS, DURATION_LABELS)
MATRICES = (PAIRS, REQUESTS, DURATIONS)

_VF_LABELS = ("pf", "vf", "pci_address", "namespace", "pod", "network_name")
VF_LABEL_HELP = {
    "pf": "interface of the physical function",
    "vf": "number of the virtual function there",
    "pci_address": "PCI address of the virtual function; empty where the card is no PCI device",
    "namespace": "namespace of the pod that has it; empty where that is not known",
    "pod": "pod that has it",
    "network_name": "secondary network that it is on",
}
VF_METRICS = (
    Metric(
        "weir_sriov_vf_received_bytes_total",
        "counter",
        "Bytes that an SR-IOV virtual function received.",
        _VF_LABELS,
    ),
    Metric(
        "weir_sriov_vf_sent_bytes_total", "counter", "Bytes that an SR-IOV virtual function sent.", _VF_LABELS
    ),
    Metric(
        "weir_sriov_vf_received_packets_total",
        "counter",
        "Packets that an SR-IOV virtual function received.",
        _VF_LABELS,
    ),
    Metric(
        "weir_sriov_vf_sent_packets_total",
        "counter",
        "Packets that an SR-IOV virtual function sent.",
        _VF_LABELS,
    ),
    Metric(
        "weir_sriov_vf_info",
        "gauge",
        "1; MAC address, driver (`vfio-pci`: user space has it) and interface of an SR-IOV virtual function.",
        ("pf", "vf", "pci_address", "mac", "driver", "interface"),
    ),
)

AGENT_METRICS = (
    Metric(
        "weir_agent_kernel_events_total",
        "counter",
        "What the kernel side could not do, or did in a second-best way.",
        ("event",),
    ),
    Metric("weir_agent_map_entries", "gauge", "Entries used of a BPF map.", ("map",)),
    Metric("weir_agent_map_capacity", "gauge", "Entries that a BPF map has room for.", ("map",)),
    Metric(
        "weir_agent_stage_duration_seconds",
        "summary",
        "Time that each stage took, from drain to snapshot; one observation a drain.",
        ("stage",),
    ),
    Metric(
        "weir_agent_bpf_run_seconds_total",
        "counter",
        "Time that a BPF program ran (only counted while the kernel's BPF statistics are on).",
        ("program",),
    ),
    Metric(
        "weir_agent_bpf_runs_total",
        "counter",
        "Runs of a BPF program (only counted while the kernel's BPF statistics are on).",
        ("program",),
    ),
    Metric(
        "weir_agent_bpf_recursion_misses_total",
        "counter",
        "Runs of a BPF program that the kernel left out because it was running already.",
        ("program",),
    ),
    Metric(
        "weir_agent_bpf_verified_instructions",
        "gauge",
        "Instructions that the kernel verified when it loaded a BPF program.",
        ("program",),
    ),
    Metric("weir_agent_plane_up", "gauge", "1 where a plane works, 0 where it does not.", ("plane",)),
    Metric("weir_agent_tls_files", "gauge", "Files (programs, libraries) whose TLS is read.", ("library",)),
    Metric(
        "weir_agent_tls_files_refused_total",
        "counter",
        "Files with a TLS library that cannot be read; the log tells why.",
    ),
    Metric("weir_agent_edges", "gauge", "Edges in the last drain."),
    Metric("weir_agent_series", "gauge", "Series of pairs in the snapshot."),
    Metric(
        "weir_agent_series_folded",
        "gauge",
        "Series that the budget had no room for; their pairs count under the workload other.",
    ),
    Metric(
        "weir_agent_unattributed_bytes_total",
        "counter",
        "Bytes on edges whose local or remote end had no name when they were counted.",
        ("end",),
    ),
    Metric(
        "weir_agent_overflow_bytes_total",
        "counter",
        "Bytes of edges that found no slot in the kernel; they count under the workload overflow, "
        "TCP and UDP together under the TCP names.",
        ("direction",),
    ),
    Metric(
        "weir_agent_counters_start_time_seconds",
        "gauge",
        "When the kernel side began to count, seconds since 1970; agents that come later go on with it.",
    ),
    Metric("weir_agent_snapshot_age_seconds", "gauge", "Age of the snapshot that this page shows."),
    Metric("weir_agent_labels_truncated_total", "counter", "Label values that were cut to 200 characters."),
    Metric(
        "weir_agent_cache_evictions_total",
        "counter",
        "Entries that a bounded cache pushed out to make room.",
        ("cache",),
    ),
    Metric(
        "weir_agent_sriov_vfs_dropped",
        "gauge",
        "SR-IOV virtual functions over the limit, which are not shown.",
    ),
    Metric(
        "weir_agent_kubernetes_objects", "gauge", "Objects of the Kubernetes API in the index.", ("kind",)
    ),
    Metric(
        "weir_agent_kubernetes_events_total",
        "counter",
        "What came of asking the Kubernetes API: lists, events, and everything that went wrong.",
        ("resource", "event"),
    ),
    Metric(
        "weir_agent_kubernetes_age_seconds",
        "gauge",
        "Since the Kubernetes API was last heard of a resource; names may be as old. Infinite: never.",
        ("resource",),
    ),
    Metric("weir_agent_errors_total", "counter", "Errors that a stage survived.", ("stage",)),
    Metric(
        "weir_agent_http_refused_total",
        "counter",
        "What the agent's own server refused: authorization (no user, a wrong password or token), "
        "certificate (of another name), forbidden (a user of the cluster who may not), unavailable (the API "
        "server was not there to ask), requests and connections (more at once than it serves).",
        ("reason",),
    ),
    Metric("weir_agent_build_info", "gauge", "1; the labels tell what was built.", ("version",)),
)

METRICS = (*PAIR_METRICS, *REQUEST_METRICS, *DURATION_METRICS, *VF_METRICS, *AGENT_METRICS)
