# SPDX-License-Identifier: Apache-2.0
"""Pair: one workload calling another, as both of them saw it."""

from __future__ import annotations

from grafana_foundation_sdk.builders import dashboard as builders

from dashboards import boards, panels
from dashboards.panels import GOOD, Query
from dashboards.promql import ENDS, either, quantile, rate, series, total
from dashboards.workload import share

_PAIR = tuple(f'{label}="${label}"' for label in ENDS[:4])
_TCP = 'protocol!="tcp"'
_DURATION = "weir_request_duration_seconds"
_SILENT = "a pair without requests"
_COLORS = (("p50", panels.BLUE), ("p95", panels.ORANGE), ("p99", panels.VERMILLION))


def _durations(reporter: str, *more: str) -> list[Query]:
    chosen = (*_PAIR, f'reporter="{reporter}"', *more)
    return [Query(quantile(q, _DURATION, *chosen), f"p{q * 100:g}", empty=_SILENT) for q in (0.5, 0.95, 0.99)]


def _ways(transport: str) -> list[Query]:
    empty = "a pair that does not speak UDP" if transport == "udp" else ""
    return [
        Query(
            either(rate(f"weir_{transport}_{way}_bytes_total", *_PAIR)),
            f"{transport.upper()} {way}",
            empty=empty,
        )
        for way in ("sent", "received")
    ]


def _signals() -> list[object]:
    requests = either(rate("weir_requests_total", *_PAIR, 'outcome=~"success|failure"'))
    return [
        panels.number(
            "Success rate",
            "Of the requests from one to the other.",
            Query(share(*_PAIR), empty=_SILENT),
            unit="percentunit",
            steps=GOOD,
            decimals=3,
        ),
        panels.number("Requests", "Per second.", Query(requests, empty=_SILENT), unit="reqps"),
        panels.number(
            "Request latency, p99", "As the caller saw it.", _durations("source", _TCP)[2], unit="s"
        ),
        panels.number(
            "Response time, p99",
            "As the server saw it. What latency is more is the network, and queues on either side of it.",
            _durations("destination", _TCP)[2],
            unit="s",
        ),
        panels.number(
            "RTT, p50",
            "The network alone, by the kernel's own TCP estimates.",
            Query(quantile(0.5, "weir_tcp_rtt_seconds", *_PAIR)),
            unit="s",
        ),
        panels.number(
            "Connections now",
            "TCP connections that are established.",
            Query(either(series("weir_tcp_connections", *_PAIR))),
        ),
    ]


def _requests() -> list[object]:
    statuses = either(rate("weir_requests_total", *_PAIR), "protocol", "method", "status")
    turns = [
        Query(
            quantile(q, _DURATION, *_PAIR, 'reporter="destination"', 'protocol="tcp"'),
            f"p{q * 100:g}",
            empty="a pair whose protocol is parsed",
        )
        for q in (0.5, 0.99)
    ]
    return [
        panels.lines(
            "Request latency (caller)",
            "From the first byte of a request leaving to the first byte of its answer arriving.",
            *_durations("source", _TCP),
            unit="s",
            width=6,
            colors=_COLORS,
        ),
        panels.lines(
            "Response time (server)",
            "From the request arriving to the first byte of the answer leaving.",
            *_durations("destination", _TCP),
            unit="s",
            width=6,
            colors=_COLORS,
        ),
        panels.lines(
            "Requests by method and status",
            "An empty status: no answer came.",
            Query(statuses, "{{protocol}} {{method}} {{status}}", empty=_SILENT),
            unit="reqps",
            width=6,
        ),
        panels.lines(
            "Turns of a protocol that is not parsed",
            "Of any TCP protocol: from the last byte of one side's "
            "turn to the first of the other's, at the server.",
            *turns,
            unit="s",
            width=6,
            colors=_COLORS,
        ),
    ]


def _network() -> list[object]:
    opened = either(rate("weir_tcp_connections_opened_total", *_PAIR))
    closed = either(rate("weir_tcp_connections_closed_total", *_PAIR))
    datagrams = [
        Query(
            either(rate(f"weir_udp_{way}_datagrams_total", *_PAIR)),
            way,
            empty="a pair that does not speak UDP",
        )
        for way in ("sent", "received")
    ]
    return [
        panels.lines(
            "Bytes",
            "Payload. sent is from the caller to the called one, whoever reports.",
            *_ways("tcp"),
            *_ways("udp"),
            unit="Bps",
        ),
        panels.lines(
            "Connections",
            "TCP connections opened and closed per second: many for few requests is a client "
            "that does not keep them.",
            Query(opened, "opened"),
            Query(closed, "closed"),
            unit="cps",
        ),
        panels.lines(
            "By network",
            "The same pair over several networks (Multus); empty is the cluster's own.",
            Query(either(rate("weir_tcp_sent_bytes_total", *_PAIR), "network_name"), "sent {{network_name}}"),
            Query(
                either(rate("weir_tcp_received_bytes_total", *_PAIR), "network_name"),
                "received {{network_name}}",
            ),
            unit="Bps",
        ),
        panels.lines(
            "Round trips and connecting",
            "RTT: the kernel's estimates. connect: from the SYN until the connection is established.",
            Query(quantile(0.5, "weir_tcp_rtt_seconds", *_PAIR), "RTT p50"),
            Query(quantile(0.99, "weir_tcp_rtt_seconds", *_PAIR), "RTT p99"),
            Query(
                quantile(0.99, "weir_tcp_connect_duration_seconds", *_PAIR),
                "connect p99",
                empty="a pair that opens no connections now",
            ),
            unit="s",
        ),
        panels.lines(
            "Trouble",
            "Segments that each end had to send again, resets, connects that failed.",
            Query(
                total(rate("weir_tcp_retransmitted_segments_total", *_PAIR), "reporter"),
                "sent again by {{reporter}}",
            ),
            Query(either(rate("weir_tcp_resets_total", *_PAIR), "direction"), "resets {{direction}}"),
            Query(
                total(rate("weir_tcp_connect_failures_total", *_PAIR), "reason"),
                "connect: {{reason}}",
                empty="a caller on a host without Weir",
            ),
            unit="cps",
        ),
        panels.lines("Datagrams", "UDP datagrams per second.", *datagrams, unit="pps"),
    ]


def made() -> builders.Dashboard:
    """Two workloads."""
    board = boards.board(
        "pair", "Pair", "One workload calling another: both ends' view, and the network between."
    )
    chosen: list[str] = []
    for label, heading in zip(ENDS, ("From namespace", "From", "To namespace", "To"), strict=False):
        query = f"label_values({boards.PAIRS}{{{', '.join(chosen)}}}, {label})"
        board.with_variable(boards.choice(label, heading, query))
        chosen.append(f'{label}="${label}"')
    return boards.filled(
        board, ("Golden signals", _signals()), ("Requests", _requests()), ("Network", _network())
    )
