# SPDX-License-Identifier: Apache-2.0
"""Networks: the cluster's own beside secondary ones (Multus), interfaces, SR-IOV virtual functions."""

from __future__ import annotations

from grafana_foundation_sdk.builders import dashboard as builders

from dashboards import boards, panels
from dashboards.panels import GOOD, NO_RULES, Column, Query
from dashboards.promql import ENDS, either, rate, recorded_quantile, series, success, total

_CHOSEN = 'network_name=~"$network"'
_NAME = "{{network_name}}"
_NO_CARD = "no SR-IOV card on this host"
_NO_LABEL = "needs the agents' option --labels interface"


def _sum(*by: str, chosen: str = _CHOSEN) -> str:
    return " + ".join(total(f"pair:weir_{way}_bytes:rate5m{{{chosen}}}", *by) for way in ("sent", "received"))


def _networks() -> list[object]:
    by = "network_name"
    again = total(f"pair:weir_tcp_retransmitted_segments:rate5m{{{_CHOSEN}}}", by)
    failed = total(f"pair:weir_tcp_connect_failures:rate5m{{{_CHOSEN}}}", by, "reason")
    note = "An empty name is the cluster's own network (eth0)."
    return [
        panels.lines(
            "Traffic by network",
            f"Payload both ways, each pair once. {note}",
            Query(_sum(by), _NAME),
            unit="Bps",
            stacked=True,
            no_value=NO_RULES,
        ),
        panels.lines(
            "Round trips by network, p50",
            f"The kernel's estimates. {note}",
            Query(recorded_quantile(0.5, "network:weir_tcp_rtt_seconds:rate5m", _CHOSEN, by=(by,)), _NAME),
            unit="s",
            no_value=NO_RULES,
        ),
        panels.lines(
            "Round trips by network, p99",
            f"A network whose p99 rises alone has a queue in it. {note}",
            Query(recorded_quantile(0.99, "network:weir_tcp_rtt_seconds:rate5m", _CHOSEN, by=(by,)), _NAME),
            unit="s",
            no_value=NO_RULES,
        ),
        panels.lines(
            "Segments sent again, by network",
            f"Loss on the way, or a queue that overflows. {note}",
            Query(again, _NAME),
            unit="pps",
            no_value=NO_RULES,
        ),
        panels.lines(
            "Connects that failed, by network",
            f"unreachable on one network alone: its routes. {note}",
            Query(failed, "{{network_name}} {{reason}}"),
            unit="cps",
            no_value=NO_RULES,
        ),
        panels.lines(
            "Success rate by network",
            f"Of requests that went over it. {note}",
            Query(success("pair:weir_requests:rate5m", _CHOSEN, by), _NAME),
            unit="percentunit",
            top=1,
            no_value=NO_RULES,
        ),
    ]


def _pairs() -> list[object]:
    keys = [
        ("network_name", "Network"),
        ("source_namespace", "From namespace"),
        ("source_workload", "From"),
        ("destination_namespace", "To namespace"),
        ("destination_workload", "To"),
    ]
    to = boards.link("pair", **{label: boards.field(label) for label in ENDS[:4]})
    secondary = f'{_CHOSEN}, network_name!=""'
    columns = [
        Column(
            "Traffic", f"topk(50, {_sum(*ENDS, chosen=secondary)})", "Bps", empty="a cluster without Multus"
        ),
        Column(
            "Success rate",
            success("pair:weir_requests:rate5m", secondary, *ENDS),
            "percentunit",
            GOOD,
            3,
            empty="a cluster without Multus",
        ),
    ]
    by = ("network_name", "interface")
    interfaces = [
        Query(
            either(rate(f"weir_{transport}_{way}_bytes_total", 'interface!=""', _CHOSEN), *by),
            f"{{{{interface}}}} {{{{network_name}}}} {transport.upper()} {way}",
            empty=_NO_LABEL,
        )
        for transport in ("tcp", "udp")
        for way in ("sent", "received")
    ]
    return [
        panels.rows(
            "Pairs on secondary networks",
            "Traffic that does not pass eth0: what tools on a node's default "
            "interface miss. A row leads to the pair.",
            keys,
            columns,
            height=9,
            link=("To", to),
        ),
        panels.lines(
            "eth0 beside net1: by interface",
            "By the interface of the pod that reports. Needs the agents' option `--labels interface`.",
            *interfaces,
            unit="Bps",
            width=24,
            no_value="no data (it needs --labels interface)",
        ),
    ]


def _functions() -> list[object]:
    by = ("namespace", "pod", "network_name", "pf", "vf")
    legend = "{{namespace}}/{{pod}} {{network_name}} ({{pf}} VF {{vf}})"
    way = {"received": "to", "sent": "from"}
    made: list[object] = [
        panels.lines(
            f"VF bytes {name}",
            f"The card's own counters of what went {word} the pods' virtual functions, "
            "whoever drives them: traffic of DPDK is in it, which no socket sees.",
            Query(
                f"topk(20, {total(rate(f'weir_sriov_vf_{name}_bytes_total', _CHOSEN), *by)})",
                legend,
                empty=_NO_CARD,
            ),
            unit="Bps",
            no_value=_NO_CARD,
        )
        for name, word in way.items()
    ]
    keys = [(label, label) for label in ("instance", "pf", "vf", "pci_address", "driver", "interface", "mac")]
    made.append(
        panels.rows(
            "Virtual functions",
            "Each of them; driver vfio-pci: a program in user space has it.",
            keys,
            [Column("there", series("weir_sriov_vf_info"), "short", empty=_NO_CARD)],
            width=8,
            height=8,
            hidden=("job", "node", "endpoint", "container", "namespace", "pod"),
            order="pf",
        )
    )
    return made


def made() -> builders.Dashboard:
    """Each network by name."""
    board = boards.board(
        "networks",
        "Networks",
        "Each network of the cluster by name: the default one, those of Multus, "
        "and SR-IOV's virtual functions.",
    )
    board.with_variable(
        boards.choice("network", "Network", f"label_values({boards.PAIRS}, network_name)", many=True)
    )
    return boards.filled(
        board,
        ("Networks", _networks()),
        ("Secondary networks", _pairs()),
        ("SR-IOV virtual functions", _functions()),
    )
