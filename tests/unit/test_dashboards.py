# SPDX-License-Identifier: Apache-2.0
"""Dashboards and rules: made from the metric table, as committed, and each alert seen to fire and not to."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

if sys.version_info < (3, 11):
    pytest.skip("grafana-foundation-sdk needs Python 3.11", allow_module_level=True)

from dashboards import promql, recording
from dashboards.__main__ import HERE, files
from dashboards.alerts import ALERTS

MADE = files()
BOARDS: dict[str, dict[str, Any]] = {
    name.removesuffix(".json"): json.loads(text) for name, text in MADE.items() if name.endswith(".json")
}
PANELS = [
    (board, panel) for board, made in BOARDS.items() for panel in made["panels"] if panel["type"] != "row"
]


def test_what_is_committed_is_what_is_made() -> None:
    """Else: python -m dashboards."""
    committed = {path.name: path.read_text() for path in HERE.glob("*.json")}
    for name in ("rules.yaml", "prometheusrule.yaml", "RULES.md"):
        committed[name] = (HERE / name).read_text()
    assert {name for name in MADE if committed.get(name) != MADE[name]} == set()
    assert set(committed) == set(MADE)


def test_a_name_that_is_not_in_the_table() -> None:
    with pytest.raises(KeyError):
        promql.rate("weir_tcp_send_bytes_total")
    with pytest.raises(ValueError, match="weir_tcp_sent_bytes_total has no label 'sourc_workload'"):
        promql.rate("weir_tcp_sent_bytes_total", 'sourc_workload="a"')


def _promtool() -> str:
    found = shutil.which("promtool")
    if found is None:
        pytest.skip("promtool is not installed (scripts/setup --tests)")
    return found


def expressions() -> Iterator[tuple[str, str]]:
    """Every expression of dashboards and alerts, and where it is."""
    for board, panel in PANELS:
        for target in panel.get("targets", ()):
            yield f"{board}: {panel['title']}", target["expr"]
    for board, made in BOARDS.items():
        for variable in made["templating"]["list"]:
            if variable["type"] == "query":
                yield f"{board}: ${variable['name']}", variable["query"]["query"]
    for alert in ALERTS:
        yield alert.name, alert.expr


def test_every_series_that_is_asked_for_exists() -> None:
    """Those of the metric table (with the suffixes of histograms and summaries), and recorded ones."""
    known = set(promql.METRICS) | recording.RECORDS
    for where, expression in expressions():
        bare = re.sub(r'"[^"]*"', '""', expression)
        for name in re.findall(r"\b(?:\w+:)?(?:weir|process)_\w+(?::\w+)?", bare):
            if ":" in name:
                stem = name.replace("_bucket:", ":")
                assert name in known or stem in known, (where, name)
            else:
                assert re.sub(r"_(bucket|sum|count)$", "", name) in known or name in known, (where, name)


def test_every_panel_says_what_it_shows_and_in_what_unit() -> None:
    without_unit = {"stat", "timeseries", "bargauge"}
    counted = {"Connections now", "Agents", "Series folded", "Planes down", "Series", "Connections",
               "Kubernetes: objects in the index"}  # fmt: skip
    for board, panel in PANELS:
        assert len(panel["description"]) > 4, (board, panel["title"])
        if panel["type"] in without_unit and panel["title"] not in counted:
            assert panel["fieldConfig"]["defaults"].get("unit"), (board, panel["title"])


def test_every_way_from_one_dashboard_leads_to_another() -> None:
    """By its uid, with variables that it has, and with fields that the row has."""
    text = json.dumps(BOARDS)
    ways = set(re.findall(r"/d/(weir-\w+)\?([^\"]*)", text))
    assert {name for name, _ in ways} == {"weir-workload", "weir-pair"}
    for name, query in ways:
        variables = {variable["name"] for variable in BOARDS[name]["templating"]["list"]}
        assert set(re.findall(r"var-(\w+)=", query)) == variables, (name, query)


def test_panels_do_not_lie_on_each_other() -> None:
    for board, made in BOARDS.items():
        taken: set[tuple[int, int]] = set()
        for panel in made["panels"]:
            at = panel["gridPos"]
            cells = {(at["x"] + x, at["y"] + y) for x in range(at["w"]) for y in range(at["h"])}
            assert not cells & taken, (board, panel["title"])
            assert at["x"] + at["w"] <= 24, (board, panel["title"])
            taken |= cells


def test_rules_are_rules() -> None:
    done = subprocess.run([_promtool(), "check", "rules", "rules.yaml"], cwd=HERE, capture_output=True,
                          text=True, check=False)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert f"{len(recording.RULES) + len(ALERTS)} rules found" in done.stdout


def ran(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [_promtool(), "test", "rules", str(folder / "rules.test.yaml")]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_alerts_fire_and_do_not() -> None:
    done = ran(HERE)
    assert done.returncode == 0, done.stdout + done.stderr
    fired = {case["alertname"] for test in yaml.safe_load((HERE / "rules.test.yaml").read_text())["tests"]
             for case in test.get("alert_rule_test", ()) if case["exp_alerts"]}  # fmt: skip
    assert fired == {alert.name for alert in ALERTS}


@pytest.mark.parametrize("expr", ["vector(0) > 1", "vector(1)"], ids=["never", "always"])
def test_an_alert_that_is_wrong_is_seen(tmp_path: Path, expr: str) -> None:
    """Of each of them: a test that holds whatever the rule says would prove nothing."""
    shutil.copy(HERE / "rules.test.yaml", tmp_path)
    made = yaml.safe_load(MADE["rules.yaml"])
    for rule in made["groups"][1]["rules"]:
        rule["expr"] = expr
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(made))
    told = ran(tmp_path)
    assert told.returncode != 0
    missing = {alert.name for alert in ALERTS if f"alertname: {alert.name}," not in told.stdout + told.stderr}
    assert missing == set()
