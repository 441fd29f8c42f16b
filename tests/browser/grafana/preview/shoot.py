# SPDX-License-Identifier: Apache-2.0
"""Pictures of the dashboards, drawn by Grafana's own components from what the town's Prometheus answered.

As root: WEIR_PREVIEW=FOLDER scripts/test tests/cluster/test_dashboards.py, then this with FOLDER as argument.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from playwright.sync_api import Error, sync_playwright

HERE = Path(__file__).parent
BOARDS = HERE.parents[3] / "dashboards"
_BUNDLE = ["node_modules/.bin/esbuild", "preview.jsx", "--bundle", "--jsx=automatic", "--log-level=warning",
           "--alias:react-custom-scrollbars-2=./scrollbars.js", "--loader:.svg=text", "--loader:.ttf=dataurl",
           '--define:process.env.NODE_ENV="production"']  # fmt: skip
_PAGE = """<!doctype html><meta charset="utf-8"><title>Weir</title><link rel="icon" href="data:,">
<link rel="stylesheet" href="preview.css"><div id="root"></div><script src="preview.js"></script>"""
#: What the node graph looks for, and what makes an edge of it.
_EDGE = {"id", "source", "target", "mainstat", "color"}


def _say(error: Error) -> None:
    print(error, file=sys.stderr)


def main(folder: Path) -> None:
    """Writes weir-NAME.png there, for each weir-NAME.results.json."""
    subprocess.run(
        ["npm", "ci", "--ignore-scripts", "--no-fund", "--no-audit", "--silent"], cwd=HERE, check=True
    )
    subprocess.run([*_BUNDLE, f"--outfile={folder / 'preview.js'}"], cwd=HERE, check=True)
    (folder / "index.html").write_text(_PAGE)
    with sync_playwright() as driver:
        browser = driver.chromium.launch(
            executable_path="/usr/bin/chromium", args=["--no-sandbox", "--disable-gpu"]
        )
        for results in sorted(folder.glob("*.results.json")):
            name = results.name.removesuffix(".results.json")
            page = browser.new_context(viewport={"width": 1208, "height": 1000}).new_page()
            page.on("pageerror", _say)
            page.goto((folder / "index.html").as_uri())
            board = json.loads((BOARDS / f"{name}.json").read_text())
            page.evaluate(
                "([board, results]) => show(board, results)", [board, json.loads(results.read_text())]
            )
            for panel in board["panels"]:
                if panel["type"] == "nodeGraph":
                    fields = page.evaluate("(id) => fields[id]", str(panel["id"]))
                    assert all(set(frame) >= _EDGE for frame in fields), fields
            page.wait_for_timeout(1500)
            page.screenshot(path=folder / f"{name}.png", full_page=True)
        browser.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]).absolute())
