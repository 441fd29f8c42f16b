# SPDX-License-Identifier: Apache-2.0
"""Topology: workloads and what flows between them, as Grafana's node graph.

The panel makes the graph of one table of edges, by the names of its fields: id, source, target, mainstat (a
number), secondarystat and color (text). All but the number are labels here, which PromQL can make:
https://grafana.com/docs/grafana/latest/panels-visualizations/visualizations/node-graph/
"""

from __future__ import annotations

from grafana_foundation_sdk.builders import dashboard as builders
from grafana_foundation_sdk.builders import nodegraph
from grafana_foundation_sdk.models import dashboard as d
from grafana_foundation_sdk.models import prometheus as p

from dashboards import boards, panels
from dashboards.panels import GOOD, NO_RULES, Column, Query
from dashboards.promql import DESTINATION, ENDS, SOURCE, success, total

#: Edges that are drawn: the busiest. The panel itself ends at 1,500 nodes.
MOST = 200
_CHOSEN = 'network_name=~"$network"'
_EITHER = ('source_namespace=~"$namespace"', 'destination_namespace=~"$namespace"')


def _named(inner: str, label: str, ends: tuple[str, ...]) -> str:
    quoted = ", ".join(f'"{name}"' for name in ends)
    return f'label_join({inner}, "{label}", "/", {quoted})'


def _flows(by: tuple[str, ...] = ENDS[:4]) -> str:
    """Bytes per second of the pairs with an end in the chosen namespaces, the busiest."""
    either = [
        " + ".join(
            total(f"pair:weir_{way}_bytes:rate5m{{{_CHOSEN}, {end}}}", *by) for way in ("sent", "received")
        )
        for end in _EITHER
    ]
    return f"topk({MOST}, ({either[0]}) or ({either[1]}))"


def _labelled(inner: str, **labels: str) -> str:
    for label, value in labels.items():
        inner = f'label_replace({inner}, "{label}", "{value}", "", "")'
    return inner


def _edges() -> str:
    """In kB/s, since the panel writes a number as it is; told apart by whether requests fail."""
    on = f"on ({', '.join(ENDS[:4])})"
    failing = total(f'pair:weir_requests:rate5m{{{_CHOSEN}, outcome="failure"}}', *ENDS[:4]) + " > 0"
    flows = f"(({_flows()}) / 1000)"
    bad = _labelled(f"({flows} and {on} {failing})", color=panels.VERMILLION, secondarystat="requests fail")
    good = _labelled(f"({flows} unless {on} {failing})", color=panels.BLUE)
    return _named(
        _named(_named(f"({bad} or {good})", "source", SOURCE), "target", DESTINATION), "id", ENDS[:4]
    )


def _graph() -> nodegraph.Panel:
    made = nodegraph.Panel().title("Who talks to whom").datasource(panels.DATASOURCE).span(24).height(18)
    made.description(
        f"The {MOST} busiest pairs with an end in the chosen namespaces. Numbers are kB per second, at a "
        "workload of what others asked it. Vermillion edges say that requests fail. The menu of an edge "
        "leads to the pair."
    )
    made.with_target(Query(_edges(), instant=True, ref="edges").built("edges", p.PromQueryFormat.TABLE))
    number = {"mode": "reduceRow", "reduce": {"reducer": "sum", "include": ["Value"]}, "alias": "mainstat"}
    made.with_transformation(d.DataTransformerConfig(id_val="calculateField", options=number))
    to = boards.link("pair", **{label: boards.field(label) for label in ENDS[:4]})
    links = d.DynamicConfigValue(id_val="links", value=[{"title": "The pair", "url": to}])
    made.override_by_name("id", [links]).no_value(NO_RULES)
    units = nodegraph.NodeOptions().main_stat_unit("kB/s"), nodegraph.EdgeOptions().main_stat_unit("kB/s")
    return made.nodes(units[0]).edges(units[1])


def _table() -> object:
    keys = [
        ("source_namespace", "From namespace"),
        ("source_workload", "From"),
        ("destination_namespace", "To namespace"),
        ("destination_workload", "To"),
    ]
    requests = total(f'pair:weir_requests:rate5m{{{_CHOSEN}, outcome=~"success|failure"}}', *ENDS[:4])
    columns = [
        Column("Traffic", _flows(), "Bps"),
        Column("Requests", f"topk({MOST}, {requests})", "reqps"),
        Column(
            "Success rate", success("pair:weir_requests:rate5m", _CHOSEN, *ENDS[:4]), "percentunit", GOOD, 3
        ),
    ]
    to = boards.link("pair", **{label: boards.field(label) for label in ENDS[:4]})
    return panels.rows(
        "The same in words",
        "What the graph shows, to be sorted and searched; a row leads to the pair.",
        keys,
        columns,
        height=12,
        link=("To", to),
    )


def made() -> builders.Dashboard:
    """The map."""
    board = boards.board("topology", "Topology", "A map of the cluster's workloads, from recorded series.")
    board.with_variable(
        boards.choice(
            "namespace", "Namespace", f"label_values({boards.PAIRS}, destination_namespace)", many=True
        )
    )
    board.with_variable(
        boards.choice("network", "Network", f"label_values({boards.PAIRS}, network_name)", many=True)
    )
    return boards.filled(board, ("", [_graph(), _table()]))
