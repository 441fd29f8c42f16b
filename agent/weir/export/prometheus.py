# SPDX-License-Identifier: Apache-2.0
"""Snapshot -> Prometheus families, at scrape. The library's way; text.py is the quick one."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from importlib import metadata
from typing import Any

import numpy as np
from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    SummaryMetricFamily,
)
from prometheus_client.core import (
    Metric as Family,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from weir.aggregate import AgentValues, Snapshot
from weir.aggregate.snapshot import Labels, Sheet
from weir.export import proto
from weir.export.text import TextRenderer, les, published
from weir.health import Health
from weir.identity.sriov import VirtualFunction
from weir.kernel.layout import Array
from weir.metrics import AGENT_METRICS, VF_METRICS, Matrix, Metric

TEXT = "text/plain; version=0.0.4; charset=utf-8"

_log = logging.getLogger(__name__)


class PairCollector(Collector):
    """Families of all pairs of one snapshot; ``created``: with a ``_created`` sample for each counter."""

    def __init__(self, snapshot: Snapshot, *, created: bool = False) -> None:
        self._snapshot = snapshot
        self._created = created

    def collect(self) -> Iterator[Family]:
        for matrix, sheet in self._snapshot.sheets():
            for metric in matrix.metrics:
                if metric.default:
                    yield _family(metric, matrix, sheet, self._created)


def _family(metric: Metric, matrix: Matrix, sheet: Sheet, created: bool) -> Family:
    rows = np.flatnonzero(sheet.shapes & metric.shape)
    labels = [sheet.pairs[row] for row in rows.tolist()]
    columns = [sheet.values[rows, matrix.column[name]] for name in metric.columns]
    if metric.buckets is not None:
        return _histogram(metric, sheet, rows, labels, columns[0], created)
    family = empty(metric, sheet.names)
    for at, pair in enumerate(labels):
        for value, column in zip(metric.values or [None], columns, strict=True):
            own = pair if value is None else (*pair, value)
            family.add_metric(own, int(column[at]))
            if created and metric.kind == "counter":
                _add_created(family, (*sheet.names, *metric.labels), own, sheet.since[rows[at]])
    return family


def _add_created(family: Family, names: Labels, labels: Labels, since: float) -> None:
    """After the other samples of these labels, where the format wants it."""
    if since:
        family.add_sample(f"{family.name}_created", dict(zip(names, labels, strict=True)), since)


def _histogram(
    metric: Metric, sheet: Sheet, rows: Array, labels: list[Labels], sums: Array, created: bool
) -> Family:
    family = HistogramMetricFamily(
        metric.name, metric.help, labels=(*sheet.names, *metric.labels), unit=metric.unit
    )
    counts = np.cumsum(published(metric, sheet.values[rows]), axis=1).tolist()
    totals, since = (sums / metric.per_second).tolist(), sheet.since[rows].tolist() if created else None
    for at, (pair, buckets, total) in enumerate(zip(labels, counts, totals, strict=True)):
        family.add_metric(pair, list(zip(les(metric), buckets, strict=True)), total)
        if since is not None:
            _add_created(family, sheet.names, pair, since[at])
    return family


def empty(metric: Metric, names: Iterable[str] = ()) -> CounterMetricFamily | GaugeMetricFamily:
    """Family without samples of a counter or gauge; ``names`` are labels that come before its own."""
    kind = CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily
    name = metric.name.removesuffix("_total")
    return kind(name, metric.help, labels=(*names, *metric.labels), unit=metric.unit)


class VfCollector(Collector):
    """Families of ``weir_sriov_vf_*``."""

    def __init__(self, vfs: Sequence[VirtualFunction]) -> None:
        self._vfs = vfs

    def collect(self) -> Iterator[Family]:
        for metric in VF_METRICS:
            family = empty(metric)
            what = metric.name.removeprefix("weir_sriov_vf_").removesuffix("_total")
            for vf in self._vfs:
                own = {**vars(vf), "vf": str(vf.index)}
                family.add_metric([own[label] for label in metric.labels], own.get(what, 1))
            yield family


class AgentCollector(Collector):
    """Families of ``weir_agent_*``; ``agent`` is that of the snapshot, None before the first one."""

    def __init__(
        self,
        agent: AgentValues | None,
        errors: Mapping[str, int],
        age: float | None,
        version: str,
        refused: Mapping[str, int] | None = None,
    ) -> None:
        self._agent = agent
        self._refused = refused or {}
        self._errors = errors
        self._age = age
        self._version = version

    def collect(self) -> Iterator[Family]:
        values = self._values()
        for metric in AGENT_METRICS:
            if metric.kind == "summary":
                yield self._summary(metric)
            elif metric.default:
                family = empty(metric)
                for labels, value in values.get(metric.name.removeprefix("weir_agent_"), {}).items():
                    one = (labels,) if labels else ()
                    family.add_metric(labels if isinstance(labels, tuple) else one, value)
                yield family

    def _summary(self, metric: Metric) -> Family:
        family = SummaryMetricFamily(metric.name, metric.help, labels=metric.labels, unit=metric.unit)
        for stage, (times, seconds) in self._agent.stages.items() if self._agent else ():
            family.add_metric((stage,), times, seconds)
        return family

    def _values(self) -> dict[str, Mapping[Any, float]]:
        found: dict[str, Mapping[Any, float]] = {
            "errors_total": self._errors,
            "http_refused_total": self._refused,
            "build_info": {self._version: 1},
        }
        if self._age is not None:
            found["snapshot_age_seconds"] = {"": self._age}
        agent = self._agent
        if agent is None:
            return found
        programs = agent.programs
        return found | {
            "kernel_events_total": agent.events,
            "map_entries": {m.name: m.used for m in agent.maps},
            "map_capacity": {m.name: m.size for m in agent.maps},
            "bpf_run_seconds_total": {p.name: p.run_ns / 1e9 for p in programs},
            "bpf_runs_total": {p.name: p.runs for p in programs},
            "bpf_recursion_misses_total": {p.name: p.recursion_misses for p in programs},
            "bpf_verified_instructions": {p.name: p.instructions for p in programs},
            "plane_up": {plane: float(not why) for plane, why in agent.planes.items()},
            "shed": {plane: float(now) for plane, (now, _) in agent.shed.items()},
            "shed_seconds_total": {plane: seconds for plane, (_, seconds) in agent.shed.items()},
            "tls_files": agent.tls_files,
            "tls_files_refused_total": {"": agent.tls_files_refused},
            "counters_start_time_seconds": {"": agent.since} if agent.since else {},
            "edges": {"": agent.edges},
            "series": {"": agent.series},
            "series_folded": {"": agent.series_folded},
            "unattributed_bytes_total": dict(zip(("local", "remote"), agent.unattributed_bytes, strict=True)),
            "overflow_bytes_total": dict(zip(("sent", "received"), agent.overflow_bytes, strict=True)),
            "labels_truncated_total": {"": agent.labels_truncated},
            "sriov_vfs_dropped": {"": agent.vfs_dropped},
            "kubernetes_objects": agent.cluster.objects,
            "kubernetes_events_total": agent.cluster.events,
            "kubernetes_age_seconds": agent.cluster.ages,
            "cache_evictions_total": agent.evictions,
        }


def installed_version() -> str:
    """Version of the installed distribution, "unknown" in a bare source tree."""
    try:
        return metadata.version("weir-agent")
    except metadata.PackageNotFoundError:
        return "unknown"


class Guarded(Collector):
    """A collector whose failure is counted and logged and costs the page only its own families."""

    def __init__(self, inner: Collector, failed: Callable[[str], None]) -> None:
        self._inner = inner
        self._failed = failed

    def collect(self) -> Iterable[Family]:
        try:
            return list(self._inner.collect())
        except Exception:  # noqa: BLE001 a page with a gap is worth more than none
            _log.exception("collector %s failed", type(self._inner).__name__)
            self._failed("export")
            return []


class Exposition:
    """The whole page, of the snapshot that is current when it is asked for."""

    def __init__(
        self, health: Health[Snapshot], version: str = "", others: Iterable[Collector] | None = None
    ) -> None:
        """Take the state; ``version`` is the installed one by default, ``others`` this process."""
        self._health = health
        self._version = version or installed_version()
        self._others = list(others) if others is not None else [ProcessCollector(registry=None)]
        self._text = TextRenderer(health.fail)

    def render(self, accept: str = "", *, created: bool = False) -> tuple[str, Iterator[bytes]]:
        """Content type and the page in pieces, as ``accept`` asks: protobuf, OpenMetrics, else text 0.0.4.

        ``created``: with ``_created`` in OpenMetrics, a series more for each counter in most databases.
        Protobuf has it anyway, and for nothing.
        """
        snapshot = self._health.snapshot
        if proto.wanted(accept):
            return proto.CONTENT_TYPE, self._proto(snapshot)
        if any(part.split(";")[0].strip() == "application/openmetrics-text" for part in accept.split(",")):
            encode, content_type = choose_encoder(accept)
            return content_type, iter([encode(self.registry(snapshot, created=created))])
        return TEXT, self._pieces(snapshot)

    def _pieces(self, snapshot: Snapshot | None) -> Iterator[bytes]:
        if snapshot is not None:
            yield from self._text.pieces(snapshot)
        yield generate_latest(self.registry(snapshot, pairs=False))

    def _proto(self, snapshot: Snapshot | None) -> Iterator[bytes]:
        if snapshot is not None:
            yield from proto.pieces(snapshot)
        yield from proto.families(self.registry(snapshot, pairs=False).collect())

    def registry(
        self, snapshot: Snapshot | None, pairs: bool = True, *, created: bool = False
    ) -> CollectorRegistry:
        """Everything of a snapshot as a registry of the library."""
        registry = CollectorRegistry()
        agent = AgentCollector(
            snapshot.agent if snapshot else None,
            self._health.errors,
            self._health.age if snapshot else None,
            self._version,
            self._health.refused,
        )
        mine = [PairCollector(snapshot, created=created)] if snapshot is not None and pairs else []
        vfs = VfCollector(snapshot.vfs if snapshot else ())
        for collector in (*mine, vfs, agent, *self._others):
            registry.register(Guarded(collector, self._health.fail))
        return registry
