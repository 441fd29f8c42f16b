# SPDX-License-Identifier: Apache-2.0
"""Overview: golden signals by namespace and workload, top talkers, errors. From recorded series only."""

from __future__ import annotations

from grafana_foundation_sdk.builders import dashboard as builders

from dashboards import boards, panels
from dashboards.panels import GOOD, NO_RULES, NONE, Column, Query
from dashboards.promql import DESTINATION, ENDS, recorded_quantile, success, total

_CHOSEN = 'destination_namespace=~"$namespace"'
_REQUESTS = f'pair:weir_requests:rate5m{{{_CHOSEN}, outcome=~"success|failure"}}'
_DURATION = "workload:weir_request_duration_seconds:rate5m"
#: Response times as servers saw them; turns of protocols that are not parsed are left out.
_SERVED = (_CHOSEN, 'reporter="destination"', 'protocol!="tcp"')


def _bytes(*by: str, chosen: str = _CHOSEN) -> str:
    ways = (total(f"pair:weir_{way}_bytes:rate5m{{{chosen}}}", *by) for way in ("sent", "received"))
    return " + ".join(ways)


def _signals() -> list[object]:
    return [
        panels.number(
            "Success rate",
            "Requests that succeeded, of those whose outcome is known. A failure is a status "
            "of 500 or more, a gRPC code or database error that is the server's, or no answer at all.",
            Query(success("pair:weir_requests:rate5m", _CHOSEN)),
            unit="percentunit",
            steps=GOOD,
            decimals=3,
            no_value=NO_RULES,
        ),
        panels.number(
            "Requests",
            "Parsed requests per second (HTTP, gRPC, DNS, Redis, PostgreSQL, MySQL), each "
            "counted once although both ends may report it.",
            Query(total(_REQUESTS)),
            unit="reqps",
            no_value=NO_RULES,
        ),
        panels.number(
            "Response time, p99",
            "From a request's arrival at the server to the first byte of its answer; "
            "99 of 100 are as fast or faster.",
            Query(recorded_quantile(0.99, _DURATION, *_SERVED)),
            unit="s",
            no_value=NO_RULES,
        ),
        panels.number(
            "Traffic",
            "TCP and UDP payload in both directions, without headers and retransmits.",
            Query(_bytes()),
            unit="Bps",
            no_value=NO_RULES,
        ),
        panels.number(
            "Connects that fail",
            "Connects per second that did not get through, all reasons.",
            Query(f"{total(f'pair:weir_tcp_connect_failures:rate5m{{{_CHOSEN}}}')} or vector(0)"),
            unit="cps",
            steps=NONE,
        ),
        panels.number(
            "Sent again",
            "TCP segments per second that had to be sent again: congestion or a bad link.",
            Query(f"{total(f'pair:weir_tcp_retransmitted_segments:rate5m{{{_CHOSEN}}}')} or vector(0)"),
            unit="pps",
        ),
    ]


def _namespaces() -> list[object]:
    by, legend = "destination_namespace", "{{destination_namespace}}"
    p99 = recorded_quantile(0.99, _DURATION, *_SERVED, by=(by,))
    return [
        panels.lines(
            "Requests by namespace",
            "By the namespace that was called.",
            Query(total(_REQUESTS, by), legend),
            unit="reqps",
            width=6,
            no_value=NO_RULES,
        ),
        panels.lines(
            "Success rate by namespace",
            "Below 99.9 % the error budget of the alerts is being spent.",
            Query(success("pair:weir_requests:rate5m", _CHOSEN, by), legend),
            unit="percentunit",
            width=6,
            top=1,
            no_value=NO_RULES,
        ),
        panels.lines(
            "Response time by namespace, p99",
            "As the servers' own hosts saw it.",
            Query(p99, legend),
            unit="s",
            width=6,
            no_value=NO_RULES,
        ),
        panels.lines(
            "Traffic by namespace",
            "Payload in both directions.",
            Query(_bytes(by), legend),
            unit="Bps",
            width=6,
            no_value=NO_RULES,
        ),
    ]


def _workloads() -> list[object]:
    keys = [("destination_namespace", "Namespace"), ("destination_workload", "Workload")]
    requests = total(_REQUESTS, *DESTINATION)
    columns = [
        Column("Requests", f"topk(100, {requests})", "reqps"),
        Column(
            "Success rate",
            success("pair:weir_requests:rate5m", _CHOSEN, *DESTINATION),
            "percentunit",
            GOOD,
            3,
        ),
        Column("p50", recorded_quantile(0.5, _DURATION, *_SERVED, by=DESTINATION), "s"),
        Column("p99", recorded_quantile(0.99, _DURATION, *_SERVED, by=DESTINATION), "s"),
        Column("Traffic", f"topk(100, {_bytes(*DESTINATION)})", "Bps"),
    ]
    to = boards.link(
        "workload",
        namespace=boards.field("destination_namespace"),
        workload=boards.field("destination_workload"),
    )
    return [
        panels.rows(
            "Workloads that are called",
            "The busiest hundred, by requests and by traffic; a row leads to "
            "the workload. Response times are the servers'.",
            keys,
            columns,
            link=("Workload", to),
        )
    ]


def _talkers() -> list[object]:
    keys = [
        ("source_namespace", "From namespace"),
        ("source_workload", "From"),
        ("destination_namespace", "To namespace"),
        ("destination_workload", "To"),
        ("network_name", "Network"),
    ]
    to = boards.link("pair", **{label: boards.field(label) for label in ENDS[:4]})
    failures = total(f"pair:weir_tcp_connect_failures:rate5m{{{_CHOSEN}}}", "reason")
    failed = total(f'pair:weir_requests:rate5m{{{_CHOSEN}, outcome="failure"}}', *DESTINATION)
    return [
        panels.rows(
            "Top talkers",
            "The twenty pairs that move most; a row leads to the pair. Network is empty for the "
            "cluster's own one.",
            keys,
            [Column("Traffic", f"topk(20, {_bytes(*ENDS)})", "Bps")],
            height=9,
            link=("To", to),
        ),
        panels.lines(
            "Requests that failed",
            "By the workload that was asked.",
            Query(f"topk(10, {failed})", "{{destination_namespace}}/{{destination_workload}}"),
            unit="reqps",
            width=12,
        ),
        panels.lines(
            "Connects that failed, by reason",
            "refused: nobody listens. timeout: no answer (a policy, a full "
            "backlog). unreachable: no route. reset: in the middle of the handshake.",
            Query(failures, "{{reason}}"),
            unit="cps",
            width=12,
        ),
    ]


def made() -> builders.Dashboard:
    """All of it."""
    board = boards.board(
        "overview",
        "Overview",
        "Golden signals of everything that Weir sees. Its panels read what "
        "the recording rules of dashboards/rules.yaml make.",
    )
    board.with_variable(
        boards.choice(
            "namespace", "Called namespace", f"label_values({boards.PAIRS}, destination_namespace)", many=True
        )
    )
    return boards.filled(
        board,
        ("Golden signals", _signals()),
        ("By namespace", _namespaces()),
        ("Workloads", _workloads()),
        ("Who talks, what fails", _talkers()),
    )
