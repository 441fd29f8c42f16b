# SPDX-License-Identifier: Apache-2.0
"""docs/metrics.md from the table of metrics: ``python -m weir.export.docs`` prints it."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator

from weir.labels import (
    DURATION_LABELS,
    EXTRA_LABELS,
    LABEL_HELP,
    REQUEST_LABEL_HELP,
    REQUEST_LABELS,
)
from weir.metrics import (
    AGENT_METRICS,
    BOUNDS_US,
    DURATION_BOUNDS,
    DURATION_METRICS,
    PAIR_METRICS,
    REQUEST_METRICS,
    VF_LABEL_HELP,
    VF_METRICS,
    Metric,
)


def render() -> str:
    """Return the page, Markdown."""
    return "\n".join(_lines()) + "\n"


def _lines() -> Iterator[str]:
    yield "# Metrics"
    yield ""
    yield "Made from `agent/weir/metrics/` by `python -m weir.export.docs`; a test compares them."
    yield ""
    yield "## Pairs"
    yield ""
    yield "One series for each pair of workloads. `sent` is from source to destination and `received` from"
    yield "destination to source, whichever end reports; the source is the end that opened the connection."
    yield "A pair has the `weir_udp_…` series if it used UDP, the others if it used TCP; connect failures and"
    yield 'connect duration only with `reporter="source"`.'
    yield ""
    yield from _table(PAIR_METRICS)
    yield ""
    yield f"Finite buckets of the histograms: {', '.join(map(_seconds, BOUNDS_US))}. They are bounds of the"
    yield "kernel's own buckets, so no sample is moved; a sample equal to a bound counts in the next bucket."
    yield ""
    yield "### Labels of every pair"
    yield ""
    yield from _labels(LABEL_HELP)
    yield ""
    yield "More by `--labels`:"
    yield ""
    yield from _labels(EXTRA_LABELS)
    yield ""
    yield "The workload `other` stands for the pairs that the series budget had no room for, `overflow` for"
    yield "the edges that found no slot in the kernel, `local` for a far end on this host that may be one of"
    yield "several workloads, `node` for the host itself, `unknown` for a near end without a name."
    yield ""
    yield "A series counts from when its first edge was seen, and ends when its last edge was idle for long."
    yield "When the far end of an edge gets a name later, its counts move to the new series if the old one"
    yield "ends by that; else they stay there, and the new series counts from then on."
    yield ""
    yield "## Requests"
    yield ""
    yield "For every pair, what its requests were ([requests.md](requests.md)). These have the"
    yield "labels of the pair and those below; a pair, method and status that was not seen has no series."
    yield ""
    yield "| name | type | unit | labels | meaning |"
    yield "|---|---|---|---|---|"
    yield from _rows(REQUEST_METRICS, REQUEST_LABELS)
    yield from _rows(DURATION_METRICS, DURATION_LABELS)
    yield ""
    yield from _labels(REQUEST_LABEL_HELP)
    yield ""
    first, last = DURATION_BOUNDS[0], DURATION_BOUNDS[-1]
    yield f"Finite buckets of the durations: powers of two from 2^-14 s ({first * 1e6:.4g} µs) to {last:g} s."
    yield "The kernel counts in 16 buckets an octave, those of native histograms of schema 4."
    yield ""
    yield "## SR-IOV virtual functions"
    yield ""
    yield "The card's own counters of each VF of this host ([sriov.md](sriov.md)), whoever drives it. They"
    yield "start again when the card's driver does, which Prometheus takes for a counter reset."
    yield ""
    yield from _table(VF_METRICS)
    yield ""
    yield from _labels(VF_LABEL_HELP)
    yield ""
    yield "## The agent itself"
    yield ""
    yield from _table(AGENT_METRICS)
    yield ""
    yield "`process_*` (CPU seconds, resident memory, open files) are those of the Prometheus client library."


def _table(metrics: Iterable[Metric]) -> Iterator[str]:
    yield "| name | type | unit | labels | meaning |"
    yield "|---|---|---|---|---|"
    yield from _rows(metrics)


def _rows(metrics: Iterable[Metric], own: tuple[str, ...] = ()) -> Iterator[str]:
    for metric in metrics:
        labels = ", ".join(f"`{label}`" for label in (*own, *metric.labels))
        off = "" if metric.default else " Off by default."
        yield f"| `{metric.name}` | {metric.kind} | {metric.unit} | {labels} | {metric.help}{off} |"


def _labels(labels: dict[str, str]) -> Iterator[str]:
    yield "| label | meaning |"
    yield "|---|---|"
    for name, meaning in labels.items():
        yield f"| `{name}` | {meaning} |"


def _seconds(bound_us: int) -> str:
    return f"{bound_us} µs" if bound_us < 1000 else f"{bound_us / 1e6:.4g} s"


if __name__ == "__main__":
    sys.stdout.write(render())
