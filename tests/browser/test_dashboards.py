# SPDX-License-Identifier: Apache-2.0
"""Dashboards as Grafana's own types have them: ``tsc --strict`` over every JSON, panel options included."""

from __future__ import annotations

import copy
import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent / "grafana"
BOARDS = {path.stem: json.loads(path.read_text())
          for path in (Path(__file__).parents[2] / "dashboards").glob("weir-*.json")}  # fmt: skip
_HEAD = 'import type { Board, Custom, Options, Thresholds } from "./types";\n'


def _panels(board: dict[str, Any]) -> list[dict[str, Any]]:
    return [panel for panel in board["panels"] if panel["type"] != "row"]


def _source(board: dict[str, Any]) -> str:
    """A program that says of every part of a dashboard of which type it is."""
    parts = [f"export const board: Board = {json.dumps(board)};"]
    for panel in _panels(board):
        where = panel["id"]
        if "options" in panel:
            parts.append(
                f'export const o{where}: Options["{panel["type"]}"] = {json.dumps(panel["options"])};'
            )
        defaults = panel.get("fieldConfig", {}).get("defaults", {})
        if panel["type"] in ("timeseries", "table") and "custom" in defaults:
            parts.append(
                f'export const c{where}: Custom["{panel["type"]}"] = {json.dumps(defaults["custom"])};'
            )
        if "thresholds" in defaults:
            parts.append(f"export const t{where}: Thresholds = {json.dumps(defaults['thresholds'])};")
    return _HEAD + "\n".join(parts)


Compile = Callable[[dict[str, Any]], subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Compile:
    node = shutil.which("node")
    compiler = HERE / "node_modules/typescript/bin/tsc"
    if node is None or not compiler.exists():
        pytest.skip("TypeScript is not installed (scripts/setup --tests --browser)")

    def run(board: dict[str, Any]) -> subprocess.CompletedProcess[str]:
        home = tmp_path_factory.mktemp("board")
        for name in ("tsconfig.json", "types.ts"):
            shutil.copy(HERE / name, home)
        (home / "node_modules").symlink_to(HERE / "node_modules")
        (home / "board.ts").write_text(_source(board))
        return subprocess.run(
            [node, str(compiler), "-p", str(home)], capture_output=True, text=True, check=False
        )

    return run


@pytest.mark.parametrize("name", sorted(BOARDS))
def test_a_dashboard_is_one_of_grafanas(compiled: Compile, name: str) -> None:
    done = compiled(BOARDS[name])
    assert done.stdout == ""
    assert done.returncode == 0


def _at(board: dict[str, Any], kind: str) -> dict[str, Any]:
    return next(panel for panel in _panels(board) if panel["type"] == kind)


def _set(*path: Any) -> Callable[[dict[str, Any]], None]:
    def plant(where: dict[str, Any]) -> None:
        *way, last, value = path
        for step in way:
            where = where[step]
        where[last] = value

    return plant


@pytest.mark.parametrize(("kind", "plant"), [
    ("", _set("refresh", 30)),
    ("", _set("graphTooltip", 7)),
    ("", _set("titel", "typo")),
    ("", _set("templating", "list", 0, "type", "qery")),
    ("", _set("annotations", "list", 0, "enable", "yes")),
    ("timeseries", _set("title", 4)),
    ("timeseries", _set("gridPos", "w", "8")),
    ("timeseries", _set("options", "legend", "displayMode", "tabel")),
    ("timeseries", _set("options", "tooltip", "mode", "multy")),
    ("timeseries", _set("fieldConfig", "defaults", "custom", "fillOpacity", "8")),
    ("timeseries", _set("fieldConfig", "defaults", "thresholds", "mode", "relative")),
    ("stat", _set("options", "graphMode", "areas")),
    ("table", _set("options", "cellHeight", "tiny")),
])  # fmt: skip
def test_planted_errors_are_caught(
    compiled: Compile, kind: str, plant: Callable[[dict[str, Any]], None]
) -> None:
    board = copy.deepcopy(BOARDS["weir-overview"])
    plant(_at(board, kind) if kind else board)
    done = compiled(board)
    assert done.returncode != 0
    assert "board.ts" in done.stdout
