# SPDX-License-Identifier: Apache-2.0
"""PromQL from the metric table: a name that is not in it, or a label that it lacks, is an error."""

from __future__ import annotations

from collections.abc import Iterable

from weir.labels import DURATION_LABELS, EXTRA_LABELS, PAIR_LABELS, REQUEST_LABELS, ROUTE_LABEL
from weir.metrics import DURATION_METRICS, PAIR_METRICS, REQUEST_METRICS, Metric
from weir.metrics import METRICS as TABLE

#: What Grafana puts in place of it: four scrape intervals, or more where the plot is coarse.
RATE = "$__rate_interval"
#: Both ends of a pair, and the network between them.
ENDS = (
    "source_namespace",
    "source_workload",
    "destination_namespace",
    "destination_workload",
    "network_name",
)
SOURCE, DESTINATION = ENDS[:2], ENDS[2:4]

#: Of the Prometheus client library, which serves them beside Weir's.
_PROCESS = (
    Metric("process_cpu_seconds_total", "counter", "CPU time of the agent."),
    Metric("process_resident_memory_bytes", "gauge", "Resident memory of the agent."),
)
#: Every metric of the table by its name.
METRICS: dict[str, Metric] = {metric.name: metric for metric in (*TABLE, *_PROCESS)}
_PAIR = {*PAIR_LABELS, *EXTRA_LABELS}
_MORE: dict[str, set[str]] = {
    **{metric.name: _PAIR for metric in PAIR_METRICS},
    **{metric.name: {*_PAIR, *REQUEST_LABELS, ROUTE_LABEL} for metric in REQUEST_METRICS},
    **{metric.name: {*_PAIR, *DURATION_LABELS, ROUTE_LABEL} for metric in DURATION_METRICS},
}


def labels_of(name: str) -> set[str]:
    """Labels that a metric has, those of Prometheus and of the PodMonitor included."""
    return {*METRICS[name].labels, *_MORE.get(name, ()), "instance", "job", "node"}


def series(name: str, *matchers: str, window: str = "", suffix: str = "") -> str:
    """A selector of one metric of the table; ``suffix`` is that of a histogram's or summary's series.

    Raises:
        KeyError: no such metric.
        ValueError: it has no such label.
    """
    known = labels_of(name) | ({"le"} if suffix == "_bucket" else set())
    for matcher in matchers:
        label = matcher.split("=")[0].rstrip("!~")
        if label not in known:
            raise ValueError(f"{name} has no label {label!r}")
    chosen = f"{{{', '.join(matchers)}}}" if matchers else ""
    return f"{name}{suffix}{chosen}" + (f"[{window}]" if window else "")


def rate(name: str, *matchers: str, window: str = RATE, suffix: str = "") -> str:
    """Per second of a counter."""
    return f"rate({series(name, *matchers, window=window, suffix=suffix)})"


def total(inner: str, *by: str) -> str:
    """Summed by labels."""
    return _by("sum", by, inner)


def either(inner: str, *by: str) -> str:
    """What both ends of a pair report, counted once: of the two reporters the one that saw more.

    Where Weir runs at both ends they agree; where it runs at one, there is only that one.
    """
    return _by("max", by, total(inner, "reporter", *by))


def _by(operator: str, by: Iterable[str], inner: str) -> str:
    labels = ", ".join(by)
    return f"{operator} by ({labels}) ({inner})" if labels else f"{operator}({inner})"


def with_default(inner: str) -> str:
    """The cluster's own network, whose name is empty, is called default."""
    return f'label_replace({inner}, "network_name", "default", "network_name", "")'


def quantile(q: float, name: str, *matchers: str, by: Iterable[str] = (), window: str = RATE) -> str:
    """Of a histogram, classic or native, whichever Prometheus has."""
    by = tuple(by)
    classic = total(rate(name, *matchers, window=window, suffix="_bucket"), *by, "le")
    native = total(rate(name, *matchers, window=window), *by)
    return f"histogram_quantile({q}, {classic}) or histogram_quantile({q}, {native})"


def recorded_quantile(q: float, record: str, *matchers: str, by: Iterable[str] = ()) -> str:
    """The same of the recorded rates of a histogram: ``level:name:rate5m``."""
    by = tuple(by)
    level, name, operation = record.split(":")
    chosen = f"{{{', '.join(matchers)}}}" if matchers else ""
    classic = total(f"{level}:{name}_bucket:{operation}{chosen}", *by, "le")
    native = total(f"{record}{chosen}", *by)
    return f"histogram_quantile({q}, {classic}) or histogram_quantile({q}, {native})"


def success(rates: str, matchers: str = "", *by: str) -> str:
    """Share of requests that succeeded, of those whose outcome is known; ``rates`` have ``outcome``."""
    chosen = f"{matchers}, " if matchers else ""
    failed = total(f'{rates}{{{chosen}outcome="failure"}}', *by)
    known = total(f'{rates}{{{chosen}outcome=~"success|failure"}}', *by)
    return f"1 - (({failed}) or 0 * ({known})) / ({known})"
