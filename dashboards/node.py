# SPDX-License-Identifier: Apache-2.0
"""Node: one host as its own agent sees it."""

from __future__ import annotations

from grafana_foundation_sdk.builders import dashboard as builders

from dashboards import boards, panels
from dashboards.panels import NONE, Column, Query
from dashboards.promql import DESTINATION, ENDS, SOURCE, quantile, rate, series, total

_HERE = 'instance="$instance"'
_NO_UDP = "a host without UDP"


def _signals() -> list[object]:
    failures = f"{total(rate('weir_tcp_connect_failures_total', _HERE))} or vector(0)"
    return [
        panels.number(
            "Connections now",
            "Established TCP connections; one with both ends here counts twice.",
            Query(total(series("weir_tcp_connections", _HERE))),
        ),
        panels.number(
            "Opened",
            "TCP connections established per second, as both ends saw them.",
            Query(total(rate("weir_tcp_connections_opened_total", _HERE))),
            unit="cps",
        ),
        panels.number(
            "Connects that fail",
            "Per second, of programs on this host.",
            Query(failures),
            unit="cps",
            steps=NONE,
        ),
        panels.number(
            "Sent again",
            "TCP segments per second that this host had to send again.",
            Query(total(rate("weir_tcp_retransmitted_segments_total", _HERE))),
            unit="pps",
        ),
        panels.number(
            "RTT, p99",
            "Of all connections of this host.",
            Query(quantile(0.99, "weir_tcp_rtt_seconds", _HERE)),
            unit="s",
        ),
        panels.number(
            "Agent's CPU",
            "Of one core. What runs in the kernel is not in it.",
            Query(rate("process_cpu_seconds_total", _HERE)),
            unit="percentunit",
            decimals=2,
        ),
    ]


def _course() -> list[object]:
    traffic = [
        Query(
            total(rate(f"weir_{transport}_{way}_bytes_total", _HERE), "reporter"),
            f"{transport.upper()} {way}, here the {{{{reporter}}}}",
            empty=_NO_UDP if transport == "udp" else "",
        )
        for transport in ("tcp", "udp")
        for way in ("sent", "received")
    ]
    datagrams = [
        Query(total(rate(f"weir_udp_{way}_datagrams_total", _HERE)), way, empty=_NO_UDP)
        for way in ("sent", "received")
    ]
    rtt = total(rate("weir_tcp_rtt_seconds_bucket".removesuffix("_bucket"), _HERE, suffix="_bucket"), "le")
    return [
        panels.lines(
            "Bytes",
            "Payload. sent is from caller to called: `sent, here the destination` came in.",
            *traffic,
            unit="Bps",
            width=12,
        ),
        panels.heat(
            "Round trips",
            "The kernel's estimates of this host's connections: a band that splits off is a far "
            "or a bad network.",
            Query(rtt, "{{le}}"),
        ),
        panels.lines(
            "Connections",
            "Opened and closed per second, and established now.",
            Query(total(rate("weir_tcp_connections_opened_total", _HERE)), "opened/s"),
            Query(total(rate("weir_tcp_connections_closed_total", _HERE)), "closed/s"),
            Query(total(series("weir_tcp_connections", _HERE)), "now"),
        ),
        panels.lines(
            "Trouble",
            "Segments sent again, resets by direction (from caller to called and back), connects that "
            "failed by reason.",
            Query(total(rate("weir_tcp_retransmitted_segments_total", _HERE)), "sent again"),
            Query(total(rate("weir_tcp_resets_total", _HERE), "direction"), "resets {{direction}}"),
            Query(total(rate("weir_tcp_connect_failures_total", _HERE), "reason"), "connect: {{reason}}"),
            unit="cps",
        ),
        panels.lines("Datagrams", "UDP datagrams per second.", *datagrams, unit="pps"),
    ]


def _who() -> list[object]:
    def sums(reporter: str, by: tuple[str, ...]) -> str:
        names = [f"weir_tcp_{way}_bytes_total" for way in ("sent", "received")]
        return " + ".join(total(rate(name, _HERE, f'reporter="{reporter}"'), *by) for name in names)

    def of(reporter: str, title: str, description: str) -> object:
        near = SOURCE if reporter == "source" else DESTINATION
        keys = [(near[0], "Namespace"), (near[1], "Workload")]
        to = boards.link("workload", namespace=boards.field(near[0]), workload=boards.field(near[1]))
        again = total(rate("weir_tcp_retransmitted_segments_total", _HERE, f'reporter="{reporter}"'), *near)
        columns = [
            Column("Traffic", f"topk(20, {sums(reporter, near)})", "Bps"),
            Column("Sent again", again, "pps"),
        ]
        return panels.rows(title, description, keys, columns, width=12, link=("Workload", to))

    keys = [*((label, label.replace("_", " ")) for label in ENDS), ("reason", "reason")]
    failing = f"topk(20, {total(rate('weir_tcp_connect_failures_total', _HERE), *ENDS, 'reason')} > 0)"
    return [
        of("destination", "Servers on this host", "TCP payload on connections that were accepted here."),
        of("source", "Clients on this host", "TCP payload on connections that were opened here."),
        panels.rows(
            "Connects that fail",
            "Of programs on this host.",
            keys,
            [Column("Failures", failing, "cps", empty="a host whose connects get through")],
        ),
    ]


def made() -> builders.Dashboard:
    """One host."""
    board = boards.board("node", "Node", "One host: bytes, connections, retransmits, resets and round trips.")
    board.with_variable(boards.choice("instance", "Agent", "label_values(weir_agent_build_info, instance)"))
    return boards.filled(board, ("Now", _signals()), ("Course", _course()), ("Who", _who()))
