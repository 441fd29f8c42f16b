# SPDX-License-Identifier: Apache-2.0
"""Metrics of the agent itself."""

from __future__ import annotations

from weir.metrics.metric import Metric

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
    Metric(
        "weir_agent_shed",
        "gauge",
        "1 while the agent does without a plane, since it needs more than --max-cpu or --max-memory. tap: "
        "single requests; requests: TCP connections' requests are not read, and none are shown; rtt: neither "
        "RTT nor connect times are shown; interval: one snapshot of four.",
        ("plane",),
    ),
    Metric(
        "weir_agent_shed_seconds_total",
        "counter",
        "How long the agent did without a plane. What requests there were meanwhile is not known; all else "
        "was counted.",
        ("plane",),
    ),
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
