# SPDX-License-Identifier: Apache-2.0
"""Recording rules: what the dashboards of a whole cluster ask for, summed once for all who look.

Names are ``level:metric:operation``. Levels: ``agent``, ``pair`` (both ends and the network between them),
``workload`` (the end that was called) and ``network``.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from dashboards.promql import DESTINATION, ENDS, either, rate, total

WINDOW = "5m"


@dataclass(frozen=True)
class Rule:
    """One recording rule, and what it means."""

    record: str
    expr: str
    meaning: str
    labels: dict[str, str] = field(default_factory=dict)


def _rate(name: str, *matchers: str, suffix: str = "") -> str:
    return rate(name, *matchers, window=WINDOW, suffix=suffix)


def _bytes(way: str, transport: str) -> Rule:
    meaning = {"sent": "source to destination", "received": "destination to source"}[way]
    expr = either(_rate(f"weir_{transport}_{way}_bytes_total"), *ENDS)
    return Rule(f"pair:weir_{way}_bytes:rate5m", expr, f"payload from {meaning}", {"transport": transport})


def _seen(way: str, transport: str) -> Rule:
    """By each agent for itself: a pair that two of them see is in both, as in what they could not name."""
    expr = total(_rate(f"weir_{transport}_{way}_bytes_total"), "instance")
    labels = {"transport": transport, "way": way}
    return Rule(
        "agent:weir_bytes:rate5m", expr, "payload that each agent counted, by each of its reporters", labels
    )


def _histogram(level: str, name: str, by: tuple[str, ...], meaning: str, *matchers: str) -> list[Rule]:
    """Its classic buckets, and the same of its native form: who scrapes one has not the other."""
    return [
        Rule(
            f"{level}:{name}_bucket:rate5m",
            total(_rate(name, *matchers, suffix="_bucket"), *by, "le"),
            meaning,
        ),
        Rule(
            f"{level}:{name}:rate5m",
            total(_rate(name, *matchers), *by),
            f"{meaning}, where it is scraped as native",
        ),
    ]


_CALLED = ", ".join(DESTINATION)
RULES: list[Rule] = [
    *(_bytes(way, transport) for way in ("sent", "received") for transport in ("tcp", "udp")),
    *(_seen(way, transport) for way in ("sent", "received") for transport in ("tcp", "udp")),
    Rule(
        "pair:weir_tcp_connections_opened:rate5m",
        either(_rate("weir_tcp_connections_opened_total"), *ENDS),
        "connections established",
    ),
    Rule(
        "pair:weir_tcp_connect_failures:rate5m",
        total(_rate("weir_tcp_connect_failures_total"), *ENDS, "reason"),
        "connects that did not get through",
    ),
    Rule(
        "pair:weir_tcp_retransmitted_segments:rate5m",
        total(_rate("weir_tcp_retransmitted_segments_total"), *ENDS),
        "segments sent again, by either end",
    ),
    Rule(
        "pair:weir_tcp_resets:rate5m",
        either(_rate("weir_tcp_resets_total"), *ENDS, "direction"),
        "TCP resets",
    ),
    Rule(
        "pair:weir_requests:rate5m",
        either(_rate("weir_requests_total"), *ENDS, "protocol", "outcome"),
        "requests by protocol and outcome",
    ),
    Rule(
        "workload:weir_requests:rate5m",
        total('pair:weir_requests:rate5m{outcome=~"success|failure"}', *DESTINATION),
        "requests that a workload was asked, of those whose outcome is known",
    ),
    Rule(
        "workload:weir_request_failures:rate5m",
        f'sum by ({_CALLED}) (pair:weir_requests:rate5m{{outcome="failure"}})'
        " or 0 * workload:weir_requests:rate5m",
        "those of them that failed; 0 where none did",
    ),
    *_histogram(
        "workload",
        "weir_request_duration_seconds",
        ("reporter", *DESTINATION, "protocol"),
        "durations of requests: reporter source is request latency, destination response time",
    ),
    *_histogram("network", "weir_tcp_rtt_seconds", ("network_name",), "round trips"),
]
#: Names of the series that the rules make.
RECORDS = {rule.record for rule in RULES}
