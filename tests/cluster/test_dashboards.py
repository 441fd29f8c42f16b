# SPDX-License-Identifier: Apache-2.0
"""Every query of every dashboard and rule, asked of a real Prometheus that scrapes the agents of a town."""

from __future__ import annotations

import json
import os
import re
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.control import ControlPlane
from tests.cluster.nodes import make_cluster
from tests.cluster.town import make_town
from tests.kernel.agents import ASKING, Agent, own_instance
from tests.kernel.test_prometheus import prometheus

if sys.version_info < (3, 11):
    pytest.skip("grafana-foundation-sdk needs Python 3.11", allow_module_level=True)

from dashboards import panels
from dashboards.__main__ import HERE, files

BOARDS: dict[str, dict[str, Any]] = {
    name.removesuffix(".json"): json.loads(text) for name, text in files().items() if name.endswith(".json")
}
#: What may be empty, by expression: why.
EMPTY = {empty.expr: empty.why for empty in panels.EMPTY}
#: Why a query is empty here too; all others that may be empty for somebody have data of this town.
NOT_HERE = {
    "no SR-IOV card on this host",
    "nothing of this kind has happened",
    "agents without --tls",
}
_CONFIG = """\
global: {{scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s}}
rule_files: [rules.yaml]
scrape_configs:
  - job_name: weir
    static_configs: [{{targets: [{target}]}}]
"""
#: Seconds of traffic before anybody asks.
_LONG = 25
PAIRS = (("web", "prod", "api"), ("web", "test", "dns"), ("web", "prod", "echo"), ("api", "prod", "cache"),
         ("web", "prod", "store"), ("web", "prod", "cache"))  # fmt: skip


@dataclass
class Asked:
    """A Prometheus, by its API."""

    url: str
    agents: tuple[str, ...]

    def get(self, what: str, **arguments: object) -> Any:
        query = urllib.parse.urlencode(arguments)
        with urllib.request.urlopen(f"{self.url}/api/v1/{what}?{query}", timeout=30) as reply:
            return json.load(reply)["data"]

    def target(self, target: dict[str, Any], variables: dict[str, str], now: float) -> list[Any]:
        """The series of one target of a panel, as Grafana would ask for them: all of a panel at one time."""
        expr = filled(target["expr"], variables)
        if target.get("instant"):
            return list(self.get("query", query=expr, time=now)["result"])
        return list(self.get("query_range", query=expr, start=now - 20, end=now, step=1)["result"])

    def number(self, expr: str) -> float:
        """Of one series."""
        (row,) = self.get("query", query=expr)["result"]
        return float(row["value"][1])


def filled(expr: str, variables: dict[str, str]) -> str:
    """Without Grafana's variables."""
    for name, value in sorted(variables.items(), key=lambda item: -len(item[0])):
        expr = expr.replace(f"${name}", value)
    assert "$" not in re.sub(r'"\$1"', "", expr), expr
    return expr


@pytest.fixture(scope="module")
def asked(control: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Asked]:
    home = tmp_path_factory.mktemp("town")
    token = home / "token"
    token.write_text(control.token("weir", "weir"))
    access = ["--api-server", control.url, "--token-file", str(token), "--ca-file", str(control.ca),
              "--labels", "interface", "--bpf-stats"]  # fmt: skip
    rules = re.sub(r"interval: 30s", "interval: 1s", (HERE / "rules.yaml").read_text())
    (home / "rules.yaml").write_text(rules)
    with (
        make_cluster(control) as cluster,
        make_town(cluster, home) as town,
        own_instance() as one,
        own_instance() as two,
        Agent(one, town.here, *access, "--node-name", "node-a", env=ASKING).ready() as here,
        Agent(two, town.there, *access, "--node-name", "node-b", env=ASKING).ready() as there,
    ):
        agents = tuple(agent.url.removeprefix("http://") for agent in (here, there))
        target = '", "'.join(agents)
        with prometheus(home, f'"{target}"', config=_CONFIG) as server:
            time.sleep(_LONG)
            yield Asked(server._url, agents)


def choices(board: str, agents: tuple[str, ...]) -> list[dict[str, str]]:
    """Values of its variables, as somebody who looks around would choose them."""
    base = {"__rate_interval": "15s", "network": ".*"}
    if board == "weir-workload":
        found = [{"namespace": "prod", "workload": name} for name in ("api", "web", "cache")]
    elif board == "weir-pair":
        names = ("source_workload", "destination_namespace", "destination_workload")
        found = [{"source_namespace": "prod", **dict(zip(names, pair, strict=True))} for pair in PAIRS]
    elif board == "weir-node":
        found = [{"instance": agent} for agent in agents]
    else:
        found = [{"namespace": ".*", "instance": ".*"}]
    return [base | values for values in found]


@pytest.mark.parametrize("board", sorted(BOARDS))
def test_every_panel_has_data(asked: Asked, board: str) -> None:
    """For one choice of variables at least, or it says why it has none, and none of these is true here."""
    empty: dict[str, str] = {}
    kept: list[dict[str, Any]] = []
    for panel in BOARDS[board]["panels"]:
        now = time.time()
        for target in panel.get("targets", ()):
            found = [asked.target(target, values, now) for values in choices(board, asked.agents)]
            kept.append({"panel": panel["id"], "refId": target["refId"], "results": found})
            if not any(found):
                empty[f"{panel['title']}: {target['expr']}"] = EMPTY.get(target["expr"], "")
    if folder := os.environ.get("WEIR_PREVIEW"):
        Path(folder, f"{board}.results.json").write_text(json.dumps(kept))
    unexplained = {where: why for where, why in empty.items() if why not in NOT_HERE}
    assert unexplained == {}


@pytest.mark.parametrize("board", sorted(BOARDS))
def test_every_variable_has_values(asked: Asked, board: str) -> None:
    for variable in BOARDS[board]["templating"]["list"]:
        if variable["type"] != "query":
            continue
        query = filled(variable["query"]["query"], choices(board, asked.agents)[0])
        found = re.fullmatch(r"label_values\((.*), (\w+)\)", query)
        assert found, query
        assert asked.get(f"label/{found[2]}/values", **{"match[]": found[1]}), query


def test_rules_are_well(asked: Asked) -> None:
    """Evaluated without an error; and two of the alerts are true of this town."""
    rules = [rule for group in asked.get("rules")["groups"] for rule in group["rules"]]
    assert {rule["name"]: rule.get("lastError") for rule in rules if rule["health"] != "ok"} == {}
    waiting = {rule["name"] for rule in rules if rule["type"] == "alerting" and rule["state"] != "inactive"}
    assert waiting >= {"WeirConnectFailures", "WeirSuccessRateBurnsFast"}
    assert not waiting & {"WeirAgentDown", "WeirAgentStale", "WeirAgentOverflows", "WeirAttributionFalls"}


def test_the_figures_are_right(asked: Asked) -> None:
    """What the town does: every fourth answer of api is a 503; two agents that see a pair count it once."""
    pair = 'source_workload="web", destination_workload="api"'
    known = f'sum(pair:weir_requests:rate5m{{{pair}, outcome=~"success|failure"}})'
    failed = f'sum(pair:weir_requests:rate5m{{{pair}, outcome="failure"}})'
    assert asked.number(f"{failed} / {known}") == pytest.approx(0.25, abs=0.03)
    for reporter in ("source", "destination"):
        one = f'sum(rate(weir_requests_total{{{pair}, reporter="{reporter}"}}[5m]))'
        assert asked.number(f"{known} / {one}") == pytest.approx(1, abs=0.1)
    networks = asked.get("label/network_name/values", **{"match[]": "pair:weir_sent_bytes:rate5m"})
    assert "prod/storage" in networks
    stored = 'pair:weir_sent_bytes:rate5m{network_name="prod/storage", destination_workload="store"}'
    assert asked.number(stored) > 10_000


def test_a_planted_error_is_seen(asked: Asked) -> None:
    """A query that is none, and one of a series that there is not."""
    with pytest.raises(urllib.error.HTTPError):
        asked.target({"expr": "sum(rate(weir_requests_total[15s])"}, {}, time.time())
    assert asked.target({"expr": "rate(weir_tcp_send_bytes_total[15s])"}, {}, time.time()) == []
