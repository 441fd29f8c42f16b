# SPDX-License-Identifier: Apache-2.0
"""Writes the dashboards and the rules beside itself: ``python -m dashboards``."""

from __future__ import annotations

import json
from pathlib import Path

from grafana_foundation_sdk.cog.encoder import JSONEncoder

from dashboards import agent, networks, node, overview, pair, rulefile, topology, workload

HERE = Path(__file__).parent
BOARDS = (overview, workload, pair, networks, node, topology, agent)


def files() -> dict[str, str]:
    """Every file that is made, by its name in this folder."""
    found = {}
    for module in BOARDS:
        board = json.loads(json.dumps(module.made().build(), cls=JSONEncoder))
        for number, panel in enumerate(board["panels"], 1):
            panel["id"] = number
        for variable in board["templating"]["list"]:
            for name in (
                "auto",
                "auto_count",
                "auto_min",
            ):  # of intervals only, but the SDK writes them to all
                variable.pop(name, None)
        found[f"{board['uid']}.json"] = json.dumps(board, sort_keys=True, indent=2, ensure_ascii=False) + "\n"
    rules = {"rules.yaml": rulefile.rules(), "prometheusrule.yaml": rulefile.prometheus_rule()}
    return found | rules | {"RULES.md": rulefile.page()}


if __name__ == "__main__":
    for name, content in files().items():
        (HERE / name).write_text(content)
