# SPDX-License-Identifier: Apache-2.0
"""Workload: one of them, who calls it, whom it calls. From the agents' own series, chosen by its name."""

from __future__ import annotations

from grafana_foundation_sdk.builders import dashboard as builders

from dashboards import boards, panels
from dashboards.panels import GOOD, Column, Query
from dashboards.promql import DESTINATION, SOURCE, either, quantile, rate, series, total

_IN = ('destination_namespace="$namespace"', 'destination_workload="$workload"')
_OUT = ('source_namespace="$namespace"', 'source_workload="$workload"')
_TCP = 'protocol!="tcp"'
_DURATION = "weir_request_duration_seconds"


def share(*matchers: str, by: tuple[str, ...] = ()) -> str:
    """Share of requests that succeeded, as either end saw it."""
    failed = either(rate("weir_requests_total", *matchers, 'outcome="failure"'), *by)
    known = either(rate("weir_requests_total", *matchers, 'outcome=~"success|failure"'), *by)
    return f"1 - (({failed}) or 0 * ({known})) / ({known})"


def both_ways(*matchers: str, by: tuple[str, ...] = ()) -> str:
    """Payload per second, TCP and UDP, there and back."""
    names = [
        f"weir_{transport}_{way}_bytes_total" for transport in ("tcp", "udp") for way in ("sent", "received")
    ]
    sums = [either(rate(name, *matchers), *by) for name in names]
    filled = [
        f"({one} or 0 * {other})"
        for one, other in ((sums[0], sums[2]), (sums[1], sums[3]), (sums[2], sums[0]), (sums[3], sums[1]))
    ]
    return " + ".join(filled)


def _signals() -> list[object]:
    requests = either(rate("weir_requests_total", *_IN, 'outcome=~"success|failure"'))
    asleep = "a workload that nobody asks anything"
    return [
        panels.number(
            "Success rate",
            "Of the requests that this workload was asked, and whose outcome is known.",
            Query(share(*_IN), empty=asleep),
            unit="percentunit",
            steps=GOOD,
            decimals=3,
        ),
        panels.number("Requests", "Per second, as called.", Query(requests, empty=asleep), unit="reqps"),
        panels.number(
            "Response time, p99",
            "From a request's arrival here to the first byte of its answer.",
            Query(quantile(0.99, _DURATION, *_IN, 'reporter="destination"', _TCP), empty=asleep),
            unit="s",
        ),
        panels.number(
            "Traffic as called",
            "Payload both ways on connections that others opened.",
            Query(both_ways(*_IN)),
            unit="Bps",
        ),
        panels.number(
            "Traffic as caller",
            "Payload both ways on connections that it opened.",
            Query(both_ways(*_OUT), empty="a workload that calls nobody"),
            unit="Bps",
        ),
        panels.number(
            "Connections now",
            "TCP connections to it that are established.",
            Query(either(series("weir_tcp_connections", *_IN))),
        ),
    ]


def _called() -> list[object]:
    status = ("protocol", "method", "status")
    failures = either(rate("weir_requests_total", *_IN, 'outcome="failure"'), "protocol", "status")
    return [
        panels.lines(
            "Requests by method and status",
            "Each as the protocol names it: a code of HTTP, a name of gRPC's or DNS's.",
            Query(
                either(rate("weir_requests_total", *_IN, _TCP), *status), "{{protocol}} {{method}} {{status}}"
            ),
            unit="reqps",
            width=12,
        ),
        panels.lines(
            "Response time",
            "At the server: half of the requests, 95 and 99 of 100 are as fast or faster.",
            *(
                Query(quantile(q, _DURATION, *_IN, 'reporter="destination"', _TCP), f"p{q * 100:g}")
                for q in (0.5, 0.95, 0.99)
            ),
            unit="s",
            width=12,
            colors=(("p50", panels.BLUE), ("p95", panels.ORANGE), ("p99", panels.VERMILLION)),
        ),
        panels.heat(
            "Response times",
            "How many requests took how long: two bands are two kinds of requests, or a cache.",
            Query(
                total(rate(_DURATION, *_IN, 'reporter="destination"', _TCP, suffix="_bucket"), "le"), "{{le}}"
            ),
        ),
        panels.lines(
            "Errors by status",
            "What failed, by protocol and status; an empty status: no answer came.",
            Query(failures, "{{protocol}} {{status}}", empty="a workload that does not fail"),
            unit="reqps",
            width=12,
        ),
    ]


def _others(side: str, title: str, description: str) -> list[object]:
    mine, far = (_IN, SOURCE) if side == "source" else (_OUT, DESTINATION)
    keys = [(far[0], "Namespace"), (far[1], "Workload"), ("network_name", "Network")]
    by = (*far, "network_name")
    columns = [
        Column(
            "Traffic", f"topk(50, {both_ways(*mine, by=by)})", "Bps", empty="a workload that calls nobody"
        ),
        Column(
            "Requests",
            either(rate("weir_requests_total", *mine, 'outcome=~"success|failure"'), *by),
            "reqps",
            empty="callers that send no requests",
        ),
        Column(
            "Success rate", share(*mine, by=by), "percentunit", GOOD, 3, empty="callers that send no requests"
        ),
        Column(
            "Request latency, p99",
            quantile(0.99, _DURATION, *mine, 'reporter="source"', _TCP, by=by),
            "s",
            empty="callers on hosts without Weir",
        ),
        Column(
            "RTT, p50",
            quantile(0.5, "weir_tcp_rtt_seconds", *mine, by=by),
            "s",
            empty="pairs that speak UDP alone",
        ),
    ]
    own = {"destination_namespace": "$namespace", "destination_workload": "$workload"}
    if side == "destination":
        own = {"source_namespace": "$namespace", "source_workload": "$workload"}
    to = boards.link("pair", **{label: boards.field(label) for label in far}, **own)
    return [panels.rows(title, description, keys, columns, width=24, height=8, link=("Workload", to))]


def _network() -> list[object]:
    reasons = total(rate("weir_tcp_connect_failures_total", *_OUT), *DESTINATION, "reason")
    return [
        panels.lines(
            "Traffic by network",
            "An empty network is the cluster's own one, others are secondary (Multus).",
            Query(both_ways(*_IN, by=("network_name",)), "called, {{network_name}}"),
            Query(
                both_ways(*_OUT, by=("network_name",)),
                "calling, {{network_name}}",
                empty="a workload that calls nobody",
            ),
            unit="Bps",
        ),
        panels.lines(
            "Round trips",
            "The kernel's own estimates, of connections to it: the network without the server.",
            *(Query(quantile(q, "weir_tcp_rtt_seconds", *_IN), f"p{q * 100:g}") for q in (0.5, 0.99)),
            unit="s",
            colors=(("p50", panels.BLUE), ("p99", panels.VERMILLION)),
        ),
        panels.lines(
            "Trouble",
            "Segments sent again and resets, of connections to it; connects of its own that failed.",
            Query(total(rate("weir_tcp_retransmitted_segments_total", *_IN)), "segments sent again"),
            Query(either(rate("weir_tcp_resets_total", *_IN)), "resets"),
            Query(
                reasons,
                "{{reason}} {{destination_namespace}}/{{destination_workload}}",
                empty="a workload that calls nobody",
            ),
            unit="cps",
        ),
    ]


def made() -> builders.Dashboard:
    """One workload."""
    board = boards.board("workload", "Workload", "One workload: how it answers, who calls it, whom it calls.")
    board.with_variable(
        boards.choice("namespace", "Namespace", f"label_values({boards.PAIRS}, destination_namespace)")
    )
    board.with_variable(
        boards.choice(
            "workload",
            "Workload",
            f'label_values({boards.PAIRS}{{destination_namespace="$namespace"}}, destination_workload)',
        )
    )
    return boards.filled(
        board,
        ("Golden signals", _signals()),
        ("As called", _called()),
        (
            "Callers and callees",
            [
                *_others(
                    "source",
                    "Callers",
                    "Who calls it; a row leads to the pair. Latency is the caller's: the way there "
                    "and back is in it.",
                ),
                *_others("destination", "Callees", "Whom it calls; a row leads to the pair."),
            ],
        ),
        ("Network", _network()),
    )
