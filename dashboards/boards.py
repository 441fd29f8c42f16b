# SPDX-License-Identifier: Apache-2.0
"""The frame of every dashboard: who it is, its variables, and the way to the others."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import quote

from grafana_foundation_sdk.builders import dashboard as builders
from grafana_foundation_sdk.models import dashboard as d

from dashboards.panels import DATASOURCE

#: Of the recording rules; variables are read from it, so that they cost nothing at any size.
PAIRS = "pair:weir_sent_bytes:rate5m"
_TAG = "weir"


def board(name: str, title: str, description: str) -> builders.Dashboard:
    """An empty dashboard with the variable ``datasource`` and links to the others of Weir."""
    made = builders.Dashboard(f"Weir / {title}").uid(f"weir-{name}").description(description).tags([_TAG])
    made.editable().time("now-1h", "now").refresh("30s").timezone("browser")
    made.tooltip(d.DashboardCursorSync.CROSSHAIR)
    link = builders.DashboardLink("Weir").type(d.DashboardLinkType.DASHBOARDS).tags([_TAG]).as_dropdown(True)
    made.link(link.keep_time(True).include_vars(False))
    made.annotation(_alerts())
    return made.with_variable(
        builders.DatasourceVariable("datasource").label("Data source").type("prometheus")
    )


def _alerts() -> builders.AnnotationQuery:
    """When one of Weir's alerts fired."""
    made = (
        builders.AnnotationQuery()
        .name("Weir's alerts")
        .datasource(DATASOURCE)
        .enable(True)
        .icon_color("#D55E00")
    )
    return made.expr('ALERTS{alertname=~"Weir.*", alertstate="firing"}')


def choice(
    name: str, label: str, query: str, *, many: bool = False, everything: str = ".*"
) -> builders.QueryVariable:
    """A variable of a label's values; with ``many`` several or all of them, as a regular expression.

    ``everything`` is what stands for all of them.
    """
    made = (
        builders.QueryVariable(name).label(label).datasource(DATASOURCE).sort(d.VariableSort.ALPHABETICAL_ASC)
    )
    made.query({"query": query, "refId": f"variable-{name}", "qryType": 1}).refresh(
        d.VariableRefresh.ON_TIME_RANGE_CHANGED
    )
    if many:
        made.multi(True).include_all(True).all_value(everything)
        made.current(d.VariableOption(selected=True, text="All", value="$__all"))
    return made


def link(name: str, **values: str) -> str:
    """The address of another dashboard of Weir; ``values`` of its variables are Grafana's placeholders."""
    variables = "&".join(f"var-{key}={quote(value, safe='${}._:%')}" for key, value in values.items())
    return f"/d/weir-{name}?{variables}&var-datasource=${{datasource}}&${{__url_time_range}}"


def field(label: str) -> str:
    """A label's value in a table's row, fit for an address."""
    return f"${{__data.fields.{label}:percentencode}}"


def filled(made: builders.Dashboard, *rows: tuple[str, Sequence[object]]) -> builders.Dashboard:
    """Adds rows of panels, each under its heading."""
    for heading, panels in rows:
        if heading:
            made.with_row(builders.Row(heading))
        for panel in panels:
            made.with_panel(panel)  # type: ignore[arg-type]
    return made
