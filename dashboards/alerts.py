# SPDX-License-Identifier: Apache-2.0
"""Alert rules: of what Weir measures, and of Weir itself. Thresholds are here, in one place."""

from __future__ import annotations

from dataclasses import dataclass

from dashboards.promql import DESTINATION, ENDS, rate, recorded_quantile, series, total
from weir.kernel.layout import LOSSES

#: Share of requests that may fail in the long run (99.9 % are to succeed).
BUDGET = 0.001
#: Requests a second below which a workload's success and latency wake nobody.
QUIET = 0.1
#: 99 of 100 requests are to be answered within so many seconds.
SLOW = 1.0
#: Bytes of a full TCP segment on Ethernet (MTU 1500 less 52 of headers), for shares of retransmits.
SEGMENT = 1448


@dataclass(frozen=True)
class Alert:
    """One alert; ``hold`` is how long it must be true, ``action`` what whoever is woken should look at."""

    name: str
    expr: str
    hold: str
    severity: str
    summary: str
    action: str


_CALLED = "{{ $labels.destination_namespace }}/{{ $labels.destination_workload }}"
_CALLER = "{{ $labels.source_namespace }}/{{ $labels.source_workload }}"


def _burn(factor: float, long: str, short: str) -> str:
    """Errors burn the budget ``factor`` times too fast, over a long time and still now.

    As in the SRE Workbook, "Alerting on SLOs", section 6.
    """
    over = [
        f"avg_over_time(workload:weir_request_failures:rate5m[{window}])"
        f" > {factor * BUDGET:.4g} * avg_over_time(workload:weir_requests:rate5m[{window}])"
        for window in (long, short)
    ]
    return f"{over[0]} and {over[1]} and avg_over_time(workload:weir_requests:rate5m[{long}]) > {QUIET}"


def _retransmits() -> str:
    ends = ", ".join(ENDS)
    sent = f'sum by ({ends}) (pair:weir_sent_bytes:rate5m{{transport="tcp"}})'
    received = f'sum by ({ends}) (pair:weir_received_bytes:rate5m{{transport="tcp"}})'
    again = "pair:weir_tcp_retransmitted_segments:rate5m"
    return f"{again} > 1 and {again} * {SEGMENT} > 0.02 * ({sent} + {received})"


def _failures() -> str:
    ends = ", ".join(ENDS)
    failed = f"sum by ({ends}) (pair:weir_tcp_connect_failures:rate5m)"
    opened = "pair:weir_tcp_connections_opened:rate5m"
    return f"{failed} > 0.1 and {failed} > 0.05 * ({failed} + ({opened} or 0 * {failed}))"


def _unnamed() -> str:
    """Of the end that lacks more names; both the bytes and those without a name are each agent's own."""
    unnamed = total(rate("weir_agent_unattributed_bytes_total", window="5m"), "instance", "end")
    return f"max by (instance) ({unnamed}) > 0.05 * {total('agent:weir_bytes:rate5m', 'instance')}"


#: A connection that began before Weir or that it cannot read is no loss to wake somebody for.
_LOST = "|".join(event for event in LOSSES if event != "request_unparsed")
_SLOW = recorded_quantile(
    0.99,
    "workload:weir_request_duration_seconds:rate5m",
    'reporter="destination"',
    'protocol!="tcp"',
    by=DESTINATION,
)

ALERTS: list[Alert] = [
    Alert(
        "WeirSuccessRateBurnsFast",
        _burn(14.4, "1h", "5m"),
        "2m",
        "critical",
        f"{_CALLED} fails requests so fast that a month's error budget is gone in two days",
        "Workload dashboard: errors by status and by caller; what changed in the last hour.",
    ),
    Alert(
        "WeirSuccessRateBurns",
        _burn(6, "6h", "30m"),
        "15m",
        "warning",
        f"{_CALLED} fails requests so fast that a month's error budget is gone in five days",
        "Workload dashboard: errors by status and by caller over the last six hours.",
    ),
    Alert(
        "WeirRequestsSlow",
        f"({_SLOW}) > {SLOW:g} and on (destination_namespace, destination_workload)"
        f" workload:weir_requests:rate5m > {QUIET}",
        "10m",
        "warning",
        f"One in a hundred requests to {_CALLED} takes {{{{ $value | humanizeDuration }}}} or longer",
        "Pair dashboard: response time (server) beside request latency (client) tells whether it is the "
        "server or"
        " the way there.",
    ),
    Alert(
        "WeirRetransmits",
        _retransmits(),
        "15m",
        "warning",
        f"More than 2 % of what {_CALLER} and {_CALLED} send each other is sent again",
        "Networks and Node dashboards: one node, one network or all of them; then the card's drops and the"
        " path's queues.",
    ),
    Alert(
        "WeirConnectFailures",
        _failures(),
        "10m",
        "warning",
        f"More than 5 % of the connects of {_CALLER} to {_CALLED} fail",
        "Pair dashboard: failures by reason. refused: nobody listens; timeout: a policy or a full backlog;"
        " unreachable: routing.",
    ),
    Alert(
        "WeirAgentDown",
        'up{job=~".*weir.*"} == 0',
        "5m",
        "warning",
        "Weir's agent on {{ $labels.instance }} does not answer",
        "The kernel goes on counting; nothing is lost if an agent comes back. `kubectl describe pod` has "
        "its last"
        " words.",
    ),
    Alert(
        "WeirAgentStale",
        f"{series('weir_agent_snapshot_age_seconds')} > 60",
        "5m",
        "warning",
        "Weir on {{ $labels.instance }} answers with figures that are {{ $value | humanizeDuration }} old",
        "Weir itself dashboard: which stage takes long; CPU throttling of the agent.",
    ),
    Alert(
        "WeirAgentLosesData",
        total(rate("weir_agent_kernel_events_total", f'event=~"{_LOST}"', window="5m"), "instance", "event")
        + " > 0",
        "10m",
        "warning",
        "Weir on {{ $labels.instance }} does not count everything: {{ $labels.event }}",
        "Weir itself dashboard: which map is full; raise `--slots` or `--max-connections`, or scope the "
        "agent.",
    ),
    Alert(
        "WeirAgentOverflows",
        f"{total(rate('weir_agent_overflow_bytes_total', window='5m'), 'instance')} > 0",
        "10m",
        "warning",
        "Weir on {{ $labels.instance }} counts bytes under the workload overflow",
        "More pairs than slots: raise `--slots`, or fold addresses by `--cidr`.",
    ),
    Alert(
        "WeirAgentFoldsSeries",
        f"{series('weir_agent_series_folded')} > 0",
        "30m",
        "info",
        "Weir on {{ $labels.instance }} has no room for {{ $value }} series: their pairs count under other",
        "Raise `--max-series`, or drop labels.",
    ),
    Alert(
        "WeirAgentMapNearlyFull",
        f"{series('weir_agent_map_entries')} > 0.9 * {series('weir_agent_map_capacity')}",
        "15m",
        "warning",
        "The map {{ $labels.map }} of Weir on {{ $labels.instance }} is more than 90 % full",
        "Raise `--slots` or `--max-connections` before anything is lost.",
    ),
    Alert(
        "WeirAgentPlaneDown",
        f"{series('weir_agent_plane_up')} == 0",
        "15m",
        "info",
        "The plane {{ $labels.plane }} of Weir on {{ $labels.instance }} does not work",
        "`weir check` there says why, and what would mend it.",
    ),
    Alert(
        "WeirAgentSheds",
        f"{series('weir_agent_shed')} == 1",
        "10m",
        "warning",
        "Weir on {{ $labels.instance }} does without {{ $labels.plane }}: it is over its cap",
        "Weir itself dashboard: CPU and memory of the agent; raise `--max-cpu` or `--max-memory`, or"
        " scope it.",
    ),
    Alert(
        "WeirAgentErrors",
        total(rate("weir_agent_errors_total", window="5m"), "instance", "stage") + " > 0",
        "15m",
        "warning",
        "The stage {{ $labels.stage }} of Weir on {{ $labels.instance }} fails",
        "The agent's log has the error, once a minute at most.",
    ),
    Alert(
        "WeirAttributionFalls",
        _unnamed(),
        "30m",
        "warning",
        "More than 5 % of the bytes that Weir on {{ $labels.instance }} counts have an end without a name",
        "Weir itself dashboard: which end. Is the Kubernetes API reached? Are there networks for `--cidr`?",
    ),
    Alert(
        "WeirKubernetesStale",
        f"{series('weir_agent_kubernetes_age_seconds')} > 600",
        "10m",
        "warning",
        "Weir on {{ $labels.instance }} has not heard of {{ $labels.resource }} for ten minutes",
        "Names may be old. Permissions (`kubectl auth can-i watch pods`), network policy, the API server.",
    ),
]
