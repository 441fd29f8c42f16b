# SPDX-License-Identifier: Apache-2.0
"""The rules as Prometheus reads them, and as the Prometheus Operator does."""

from __future__ import annotations

from typing import Any

import yaml

from dashboards.alerts import ALERTS
from dashboards.recording import RULES

_HEAD = "# SPDX-License-Identifier: Apache-2.0\n# Made by `python -m dashboards`; a test compares.\n"


def _recording() -> list[dict[str, Any]]:
    return [
        {"record": rule.record, "expr": rule.expr} | ({"labels": rule.labels} if rule.labels else {})
        for rule in RULES
    ]


def _alerting() -> list[dict[str, Any]]:
    return [
        {
            "alert": alert.name,
            "expr": alert.expr,
            "for": alert.hold,
            "labels": {"severity": alert.severity},
            "annotations": {"summary": alert.summary, "action": alert.action},
        }
        for alert in ALERTS
    ]


def groups() -> dict[str, Any]:
    """Both groups; the alerts read what the recording rules make."""
    return {
        "groups": [
            {"name": "weir-recording", "interval": "30s", "rules": _recording()},
            {"name": "weir-alerts", "rules": _alerting()},
        ]
    }


def _text(what: dict[str, Any]) -> str:
    return _HEAD + str(yaml.safe_dump(what, sort_keys=False, width=110, allow_unicode=True))


def page() -> str:
    """What each rule means, for people."""
    records: dict[str, str] = {}
    for rule in RULES:
        records.setdefault(rule.record, rule.meaning)
    return "\n".join(
        [
            "# Rules",
            "",
            "Made by `python -m dashboards`. What for: [dashboards.md](../docs/dashboards.md).",
            "",
            "Recording rules, every 30 s over the last 5 minutes:",
            "",
            "| record | meaning |",
            "|---|---|",
            *(f"| `{record}` | {meaning} |" for record, meaning in records.items()),
            "",
            "Alerts:",
            "",
            "| alert | severity | for | says | look at |",
            "|---|---|---|---|---|",
            *(f"| `{a.name}` | {a.severity} | {a.hold} | {a.summary} | {a.action} |" for a in ALERTS),
            "",
        ]
    )


def rules() -> str:
    """A file for ``rule_files`` of Prometheus."""
    return _text(groups())


def prometheus_rule() -> str:
    """The same as an object of the Prometheus Operator."""
    head = {"apiVersion": "monitoring.coreos.com/v1", "kind": "PrometheusRule", "metadata": {"name": "weir"}}
    return _text(head | {"spec": groups()})
