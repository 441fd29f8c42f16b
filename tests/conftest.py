# SPDX-License-Identifier: Apache-2.0
"""All rings: WEIR_NO_SKIP=1 turns skips into failures, and each ring says how long it took."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Generator
from pathlib import Path

import pytest

_SECONDS = pytest.StashKey[Counter[str]]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_SECONDS] = Counter()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    ring = Path(item.nodeid.split("::")[0]).parts[:2]
    item.config.stash[_SECONDS]["/".join(ring)] += call.duration  # type: ignore[assignment]
    _no_skip(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    _no_skip(report)
    return report


def _no_skip(report: pytest.TestReport | pytest.CollectReport) -> None:
    if report.skipped and not hasattr(report, "wasxfail") and os.environ.get("WEIR_NO_SKIP") == "1":
        why = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome = "failed"
        report.longrepr = f"{why} (WEIR_NO_SKIP=1: a skip is a failure)"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for ring, seconds in sorted(terminalreporter.config.stash[_SECONDS].items()):
        terminalreporter.write_line(f"ring {ring}: {seconds:.1f} s")
