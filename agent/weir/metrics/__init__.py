# SPDX-License-Identifier: Apache-2.0
"""The one table of every metric. Exposition, docs/metrics.md and dashboards are made from it."""

from weir.metrics.agent import AGENT_METRICS
from weir.metrics.metric import BOUNDS_US, BUCKETS, Kind, Matrix, Metric
from weir.metrics.pairs import (
    COLUMN,
    COLUMNS,
    CONNECT,
    DURATION_BOUNDS,
    DURATION_METRICS,
    DURATIONS,
    MATRICES,
    PAIR_METRICS,
    PAIRS,
    PAIRS_WITHOUT_RTT,
    REQUEST_METRICS,
    REQUESTS,
    RTT,
    SOURCE_SHAPE,
    TCP_SHAPE,
    UDP_SHAPE,
    VF_LABEL_HELP,
    VF_METRICS,
)

METRICS = (*PAIR_METRICS, *REQUEST_METRICS, *DURATION_METRICS, *VF_METRICS, *AGENT_METRICS)

__all__ = [
    "AGENT_METRICS",
    "BOUNDS_US",
    "BUCKETS",
    "COLUMN",
    "COLUMNS",
    "CONNECT",
    "DURATIONS",
    "DURATION_BOUNDS",
    "DURATION_METRICS",
    "MATRICES",
    "METRICS",
    "PAIRS",
    "PAIRS_WITHOUT_RTT",
    "PAIR_METRICS",
    "REQUESTS",
    "REQUEST_METRICS",
    "RTT",
    "SOURCE_SHAPE",
    "TCP_SHAPE",
    "UDP_SHAPE",
    "VF_LABEL_HELP",
    "VF_METRICS",
    "Kind",
    "Matrix",
    "Metric",
]
