# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import math
import re
import subprocess
import sys
from pathlib import Path

from weir.export.docs import render
from weir.kernel.layout import bucket_bounds_us, duration_bounds
from weir.metrics import BOUNDS_US, DURATION_BOUNDS, MATRICES, METRICS, PAIRS, TCP_SHAPE

ROOT = Path(__file__).parents[2]


def test_docs_are_those_of_the_table() -> None:
    assert (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8") == render(), (
        "python -m weir.export.docs > docs/metrics.md"
    )


def test_docs_module_prints_the_page() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "weir.export.docs"],
        check=True, capture_output=True, text=True, env={"PYTHONPATH": str(ROOT / "agent")},
    )  # fmt: skip
    assert done.stdout == render()


def test_names_follow_the_conventions() -> None:
    names = [metric.name for metric in METRICS]
    assert len(names) == len(set(names))
    for metric in METRICS:
        assert metric.name.startswith("weir_")
        assert metric.name.endswith("_total") == (metric.kind == "counter"), metric.name
        assert metric.help.endswith("."), metric.name


def test_every_published_bucket_bound_is_one_of_the_kernels() -> None:
    assert set(BOUNDS_US) <= set(bucket_bounds_us().tolist())
    assert (BOUNDS_US[0], BOUNDS_US[-1]) == (64, 1 << 24)
    assert set(DURATION_BOUNDS) <= set(duration_bounds().tolist())
    assert (DURATION_BOUNDS[0], DURATION_BOUNDS[-1]) == (2**-14, 16.0)


def test_the_kernel_compares_with_the_bounds_within_an_octave() -> None:
    text = (ROOT / "bpf/requests.h").read_text(encoding="utf-8")
    found = [int(number) for number in re.findall(r"under\(part, (\d+)\)", text)]
    assert found == [math.ceil((2 ** (k / 16) - 1) * 2**16) for k in range(1, 16)]


def test_every_column_is_published_once() -> None:
    for matrix in MATRICES:
        columns = [c for m in matrix.metrics for c in m.columns]
        buckets = [i for m in matrix.metrics if m.buckets for i in range(matrix.width)[m.buckets]]
        assert sorted(columns) == sorted(matrix.column)
        assert sorted([matrix.column[c] for c in columns] + buckets) == list(range(matrix.width))
    assert PAIRS.series_of(7) == PAIRS.width + 2
    assert [m.series_of(TCP_SHAPE) for m in MATRICES[1:]] == [1, len(DURATION_BOUNDS) + 3]
