# SPDX-License-Identifier: Apache-2.0
"""Panels as all dashboards have them: one way to say a query, a unit, a threshold, a colour.

Colours are those of Okabe and Ito, which people with any colour vision can tell apart; what a colour
says is always there as a number or a word too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from grafana_foundation_sdk.builders import (
    bargauge,
    common,
    heatmap,
    prometheus,
    stat,
    table,
    text,
    timeseries,
)
from grafana_foundation_sdk.builders import dashboard as builders
from grafana_foundation_sdk.models import common as c
from grafana_foundation_sdk.models import dashboard as d
from grafana_foundation_sdk.models import heatmap as h
from grafana_foundation_sdk.models import prometheus as p

from dashboards.promql import with_default

BLUE, ORANGE, VERMILLION, GREEN = "#0072B2", "#E69F00", "#D55E00", "#009E73"
#: Of several queries in one panel, in turn.
_IN_TURN = (BLUE, ORANGE, GREEN, "#CC79A7", "#56B4E9", VERMILLION)
DATASOURCE = d.DataSourceRef(type_val="prometheus", uid="${datasource}")
#: What a panel says that has nothing to show, where only recording rules make its series.
NO_RULES = "no data (are the recording rules loaded?)"
#: A share that should be near 1.
GOOD = ((None, VERMILLION), (0.99, ORANGE), (0.999, BLUE))
#: A count that should be 0.
NONE = ((None, BLUE), (1e-9, VERMILLION))
NEUTRAL = ((None, BLUE),)

Any_ = TypeVar("Any_", bound=Any)
Steps = Sequence[tuple[float | None, str]]


@dataclass(frozen=True)
class Query:
    """One expression. ``legend`` in Grafana's form; ``instant`` for tables.

    ``empty`` says why it may have nothing to show on a healthy host; tests want data of all others.
    """

    expr: str
    legend: str = ""
    instant: bool = False
    ref: str = ""
    empty: str = ""

    @property
    def text(self) -> str:
        """What is asked; where a legend tells networks, the cluster's own has a name too."""
        return with_default(self.expr) if "{{network_name}}" in self.legend else self.expr

    def built(self, ref: str, form: p.PromQueryFormat) -> prometheus.Dataquery:
        made = prometheus.Dataquery().expr(self.text).ref_id(self.ref or ref).format(form)
        made.legend_format(self.legend or "__auto")
        return made.instant() if self.instant else made.range()


@dataclass(frozen=True)
class Empty:
    """What may be empty, and why: panel, expression, reason."""

    expr: str
    why: str


#: Of every panel made so far.
EMPTY: list[Empty] = []


def _dressed(
    panel: Any_,
    title: str,
    description: str,
    queries: Sequence[Query],
    *,
    unit: str = "",
    width: int = 8,
    height: int = 8,
    steps: Steps = NEUTRAL,
    form: p.PromQueryFormat = p.PromQueryFormat.TIME_SERIES,
) -> Any_:
    panel.title(title).description(description).datasource(DATASOURCE).span(width).height(height)
    if unit:
        panel.unit(unit)
    panel.thresholds(_thresholds(steps))
    for number, query in enumerate(queries):
        panel.with_target(query.built(_letter(number), form))
        if query.empty:
            EMPTY.append(Empty(query.text, query.empty))
    return panel


def _thresholds(steps: Steps) -> builders.ThresholdsConfig:
    made = [d.Threshold(value=value, color=color) for value, color in steps]
    return builders.ThresholdsConfig().mode(d.ThresholdsMode.ABSOLUTE).steps(made)


def _reduced() -> common.ReduceDataOptions:
    return common.ReduceDataOptions().calcs(["lastNotNull"])


def number(
    title: str,
    description: str,
    query: Query,
    *,
    unit: str = "",
    steps: Steps = NEUTRAL,
    width: int = 4,
    decimals: int | None = None,
    no_value: str = "",
) -> stat.Panel:
    """One figure, with its course behind it."""
    panel = _dressed(stat.Panel(), title, description, [query], unit=unit, width=width, height=4, steps=steps)
    panel.reduce_options(_reduced()).graph_mode(c.BigValueGraphMode.AREA).color_mode(
        c.BigValueColorMode.VALUE
    )
    if decimals is not None:
        panel.decimals(decimals)
    if no_value:
        panel.no_value(no_value)
    return panel


def lines(
    title: str,
    description: str,
    *queries: Query,
    unit: str = "",
    width: int = 8,
    height: int = 8,
    colors: Sequence[tuple[str, str]] = (),
    stacked: bool = False,
    top: float | None = None,
    no_value: str = "",
) -> timeseries.Panel:
    """Curves over time with their last, highest and mean values; ``colors`` are (legend, colour)."""
    panel = _dressed(timeseries.Panel(), title, description, queries, unit=unit, width=width, height=height)
    legend = (
        common.VizLegendOptions().display_mode(c.LegendDisplayMode.TABLE).placement(c.LegendPlacement.BOTTOM)
    )
    panel.legend(legend.show_legend(True).calcs(["lastNotNull", "max", "mean"][: max(1, width // 4)]))
    panel.color_scheme(builders.FieldColor().mode(d.FieldColorModeId.PALETTE_CLASSIC))
    panel.tooltip(common.VizTooltipOptions().mode(c.TooltipDisplayMode.MULTI).sort(c.SortOrder.DESCENDING))
    panel.line_width(2).fill_opacity(8).show_points(c.VisibilityMode.NEVER).min(0)
    if top is not None:
        panel.max(top)
    if stacked:
        panel.stacking(common.StackingConfig().mode(c.StackingMode.NORMAL)).fill_opacity(30)
    for name, color in colors:
        panel.override_by_name(name, [_fixed(color)])
    for number, query in enumerate(queries if len(queries) > 1 and not colors else ()):
        if "{{" not in query.legend:  # of one curve
            panel.override_by_query(_letter(number), [_fixed(_IN_TURN[number % len(_IN_TURN)])])
    if no_value:
        panel.no_value(no_value)
    return panel


def _fixed(color: str) -> d.DynamicConfigValue:
    return d.DynamicConfigValue(id_val="color", value={"mode": "fixed", "fixedColor": color})


def _letter(number: int) -> str:
    """Of a query, as Grafana counts them."""
    return chr(ord("A") + number)


def heat(title: str, description: str, query: Query, *, unit: str = "s", width: int = 12) -> heatmap.Panel:
    """A histogram over time; its query is summed by ``le`` (or is a native histogram)."""
    panel = _dressed(
        heatmap.Panel(), title, description, [query], width=width, form=p.PromQueryFormat.HEATMAP
    )
    panel.calculate(False).y_axis(heatmap.YAxisConfig().unit(unit).axis_placement(c.AxisPlacement.LEFT))
    color = heatmap.HeatmapColorOptions().mode(h.HeatmapColorMode.SCHEME).scheme("Viridis").steps(64)
    panel.color(color.exponent(0.5).fill("dark-blue").scale(h.HeatmapColorScale.EXPONENTIAL))
    panel.cell_gap(1).filter_values(heatmap.FilterValueRange().le(1e-9)).show_value(c.VisibilityMode.NEVER)
    return panel.mode(c.TooltipDisplayMode.SINGLE).show_y_histogram()


@dataclass(frozen=True)
class Column:
    """One value of a table: its query, which gives the column's letter, and how it is shown."""

    title: str
    expr: str
    unit: str
    steps: Steps = ()
    decimals: int | None = None
    empty: str = ""


#: What the cluster's own network is called in a table.
_DEFAULT_NETWORK = d.DynamicConfigValue(
    id_val="mappings",
    value=[{"type": "special", "options": {"match": "empty", "result": {"text": "default", "index": 0}}}],
)


def rows(
    title: str,
    description: str,
    keys: Sequence[tuple[str, str]],
    columns: Sequence[Column],
    *,
    width: int = 24,
    height: int = 10,
    link: tuple[str, str] | None = None,
    hidden: Sequence[str] = (),
    order: str = "",
) -> table.Panel:
    """A table: one row for each set of labels ``keys`` (label, heading), one column for each query.

    ``link`` is (heading, address) of the column that leads on; ``hidden`` are further labels; ``order``
    the heading of the column that sorts, the highest first.
    """
    queries = [Query(column.expr, instant=True, empty=column.empty) for column in columns]
    panel = _dressed(
        table.Panel(), title, description, queries, width=width, height=height, form=p.PromQueryFormat.TABLE
    )
    alone = len(columns) == 1
    values = {("Value" if alone else f"Value #{_letter(n)}"): col.title for n, col in enumerate(columns)}
    named = dict(keys) | values
    options = {
        "excludeByName": dict.fromkeys(("Time", "__name__", *hidden), True),
        "renameByName": named,
        "indexByName": {name: place for place, name in enumerate(named)},
    }
    panel.with_transformation(d.DataTransformerConfig(id_val="merge", options={}))
    panel.with_transformation(d.DataTransformerConfig(id_val="organize", options=options))
    for label, heading in keys:
        if label == "network_name":
            panel.override_by_name(heading, [_DEFAULT_NETWORK])
    for column in columns:
        panel.override_by_name(column.title, _shown(column))
    if link:
        heading, address = link
        value = [{"title": "Look closer", "url": address, "targetBlank": False}]
        panel.override_by_name(heading, [d.DynamicConfigValue(id_val="links", value=value)])
    panel.sort_by([common.TableSortByFieldState().display_name(order or columns[0].title).desc(True)])
    panel.filterable(True).min_width(80).cell_height(c.TableCellHeight.SM)
    return panel


def _shown(column: Column) -> list[d.DynamicConfigValue]:
    made = [d.DynamicConfigValue(id_val="unit", value=column.unit)]
    if column.decimals is not None:
        made.append(d.DynamicConfigValue(id_val="decimals", value=column.decimals))
    if column.steps:
        steps = [{"value": value, "color": color} for value, color in column.steps]
        made.append(d.DynamicConfigValue(id_val="thresholds", value={"mode": "absolute", "steps": steps}))
        made.append(d.DynamicConfigValue(id_val="custom.cellOptions", value={"type": "color-text"}))
    return made


def bars(
    title: str,
    description: str,
    query: Query,
    *,
    unit: str = "",
    steps: Steps = NEUTRAL,
    width: int = 8,
    top: float | None = None,
    no_value: str = "",
) -> bargauge.Panel:
    """A bar for each series, by its last value."""
    panel = _dressed(bargauge.Panel(), title, description, [query], unit=unit, width=width, steps=steps)
    panel.orientation(c.VizOrientation.HORIZONTAL).display_mode(c.BarGaugeDisplayMode.BASIC).min(0)
    panel.reduce_options(_reduced()).value_mode(c.BarGaugeValueMode.TEXT).decimals(1)
    if top is not None:
        panel.max(top)
    if no_value:
        panel.no_value(no_value)
    return panel


def words(content: str, *, width: int = 24, height: int = 3) -> text.Panel:
    """Markdown."""
    return text.Panel().content(content).span(width).height(height).transparent(True)
