# SPDX-License-Identifier: Apache-2.0
"""Metrics of pairs and of virtual functions: the columns they are summed in, and their names."""

from __future__ import annotations

import numpy as np

from weir.kernel import layout
from weir.kernel.layout import FAILURES
from weir.labels import DURATION_LABELS, REQUEST_LABELS
from weir.metrics.metric import BUCKETS, Matrix, Metric

#: Which series a pair has: it carries TCP, it carries UDP, it opens TCP connections itself.
TCP_SHAPE, UDP_SHAPE, SOURCE_SHAPE = 1, 2, 4

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
#: As :data:`PAIRS`, less what is not shown while the agent has too much to do.
PAIRS_WITHOUT_RTT = Matrix(
    COLUMN, COLUMNS, tuple(m for m in PAIR_METRICS if m.buckets is None), gauges=PAIRS.gauges
)
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
