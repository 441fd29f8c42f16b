# SPDX-License-Identifier: Apache-2.0
"""``python -m tests.mutation COSMIC_RAY [--sample N] [--seed N] [--write]``: how many errors tests find.

Planted in identity, aggregation and exposition by cosmic-ray, in a copy of the committed tree: one place in
the code is changed at a time, N places by chance (150). Tests are those of the unit ring that are about it;
what only the kernel and the cluster ring tell counts as not found.
"""

from __future__ import annotations

import argparse
import collections
import datetime as dt
import random
import shlex
import sqlite3
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
_PAGE = ROOT / "docs/mutation.md"
_MODULES = ("aggregate", "identity", "export/prometheus.py", "export/text.py", "export/proto.py")
#: Of the network, not of identity: tests/cluster has them.
_OUT = ("reflector", "api", "tokens", "watch")
_TESTS = (
    "test_aggregate",
    "test_aggregate_requests",
    "test_any_input",
    "test_any_object",
    "test_export_prometheus",
    "test_export_proto",
    "test_identity_cluster",
    "test_identity_containers",
    "test_identity_local",
    "test_identity_remote",
    "test_kube_index",
    "test_kube_names",
    "test_kube_pods",
    "test_kube_store",
    "test_labels",
    "test_marked_ports",
    "test_metrics",
    "test_nothing_stays",
    "test_podlogs",
    "test_runtimes",
    "test_sriov",
)
_CONFIG = """[cosmic-ray]
module-path = [{modules}]
timeout = 90.0
excluded-modules = [{out}]
test-command = "{command}"
[cosmic-ray.distributor]
name = "local"
"""


def _config(tree: Path) -> str:
    tests = " ".join(f"tests/unit/{name}.py" for name in _TESTS)
    command = (
        f"env PYTHONPATH={tree}/agent:{tree} PYTHONDONTWRITEBYTECODE=1 {sys.executable}"
        f" -m pytest -q -x -p no:cacheprovider --no-header --tb=no {tests}"
    )
    modules = ", ".join(f'"agent/weir/{name}"' for name in _MODULES)
    out = ", ".join(f'"agent/weir/identity/kube/{name}.py"' for name in _OUT)
    return _CONFIG.format(modules=modules, out=out, command=command)


def _sample(session: Path, size: int, seed: int) -> int:
    """Leave so many mutations, one a place; of how many places. Annotations (``X | None``) are none."""
    places: dict[tuple[object, ...], list[str]] = collections.defaultdict(list)
    with sqlite3.connect(session) as base:
        for job, module, operator, row, column in base.execute(
            "select job_id, module_path, operator_name, start_pos_row, start_pos_col from mutation_specs"
        ):
            kind = operator.rpartition("/")[2]
            if not kind.startswith("ReplaceBinaryOperator_BitOr"):
                places[module, row, column, kind.partition("_")[0]].append(job)
        rng = random.Random(seed)
        chosen = rng.sample(sorted(map(rng.choice, places.values())), min(size, len(places)))
        marks = ",".join("?" * len(chosen))
        for table in ("work_items", "mutation_specs"):
            base.execute(f"delete from {table} where job_id not in ({marks})", chosen)
    return len(places)


def _found(session: Path) -> tuple[dict[str, int], list[str]]:
    counts: dict[str, int] = collections.Counter()
    alive = []
    with sqlite3.connect(session) as base:
        for module, row, operator, where, outcome, diff in base.execute(
            "select module_path, start_pos_row, operator_name, definition_name, test_outcome, diff"
            " from mutation_specs m join work_results r on m.job_id = r.job_id"
        ):
            counts[str(outcome).rpartition(".")[2]] += 1
            if "SURVIVED" in str(outcome):
                lines = [
                    x for x in (diff or "").splitlines() if x[:1] in "+-" and x[:3] not in ("+++", "---")
                ]
                alive.append(
                    f"{module}:{row} {operator.rpartition('/')[2]} in {where}\n    " + "\n    ".join(lines)
                )
    return counts, alive


def main() -> None:
    """Run; print the score and what survived."""
    parser = argparse.ArgumentParser()
    parser.add_argument("cosmic_ray")
    parser.add_argument("--sample", type=int, default=150)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    parser.add_argument("--write", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        tree, session = Path(folder) / "tree", Path(folder) / "session.sqlite"
        subprocess.run(["git", "clone", "-q", str(ROOT), str(tree)], check=True)
        (tree / "cr.toml").write_text(_config(tree), encoding="utf-8")
        for step in ("init", "exec"):
            subprocess.run([given.cosmic_ray, step, "cr.toml", str(session)], cwd=tree, check=True)
            if step == "init":
                places = _sample(session, given.sample, given.seed)
        counts, alive = _found(session)
    done = sum(counts.values())
    killed = done - len(alive)
    line = f"{killed} of {done} found ({killed / max(1, done):.0%}), of {places} places, seed {given.seed}"
    print(*alive, line, sep="\n")
    if given.write:
        today = dt.datetime.now(tz=dt.timezone.utc).date()
        command = shlex.join(["scripts/mutation", "--sample", str(given.sample), "--seed", str(given.seed)])
        head = "<!-- Written by scripts/mutation --write. -->\n# Planted errors"
        survived = "\n".join(alive)
        page = f"{head}\n\n{today}, `{command}`: {line}.\n\nNot found:\n\n```\n{survived}\n```\n"
        _PAGE.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
