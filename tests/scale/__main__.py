# SPDX-License-Identifier: Apache-2.0
"""``python -m tests.scale [--nodes N] [--seconds S]``: measure at scale, print, and write docs/scale.md."""

from __future__ import annotations

import argparse
import contextlib
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from tests.bench import spaces
from tests.cluster.control import ROOT, ControlPlane, free_port, programs
from tests.kernel.agents import ASKING, command, environment
from tests.kernel.peers.netns import Netns
from tests.scale import measure
from tests.scale.measure import Where, cpu
from tests.scale.page import CacheFigures, Figures, Whole, page
from tests.scale.town import Town

_FULL = 5000
_PODS = "/api/v1/pods"


@contextlib.contextmanager
def kube_cache(where: Where, folder: Path) -> Iterator[tuple[Where, int]]:
    """A cache without TLS; (how agents reach it, its process)."""
    port = free_port()
    with (folder / "cache.log").open("wb") as log:
        process = subprocess.Popen(
            command("kube-cache", "--listen", f"127.0.0.1:{port}", *where.options()),
            stderr=log, env=environment(**ASKING), cwd="/",
        )  # fmt: skip
    try:
        yield Where(f"http://127.0.0.1:{port}", where.token), process.pid
    finally:
        process.terminate()
        process.wait(30)


def _agents(where: Where, asked: int, town: Town, netns: Netns, seconds: float, n: int) -> Figures:
    """Some agents one after the other; the last one under events, with readers beside it."""
    starts, loads = [], []
    for number in range(n):
        before, began = cpu(asked), time.monotonic()
        with measure.agent(where, netns) as running:
            starts.append(measure.started(running, town, asked, before, began))
            if number < n - 1:
                continue

            def heard() -> float:
                return running.page().sum(measure.EVENTS, resource="pods", event="events")

            for readers in (0, 8):
                crowd = measure.Readers(where, _PODS, readers, measure.version(where))
                try:
                    time.sleep(3)
                    names = {"agent": running.pid, "asked": asked}
                    loads.append((readers, measure.events(town, names, seconds, heard)))
                finally:
                    crowd.close()
            end = measure.resident(running.pid)
    return Figures(starts, loads, end)


def main() -> None:
    parser = argparse.ArgumentParser(prog="scripts/scale", description=__doc__)
    parser.add_argument("--nodes", type=int, default=_FULL)
    parser.add_argument("--seconds", type=float, default=20.0, help="of events")
    parser.add_argument("--agents", type=int, default=3, help="one after the other")
    given = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="weir-scale-") as name, spaces.make_netns() as netns:
        folder = Path(name)
        control = ControlPlane(programs(), folder)
        try:
            control.start()
            control.api.create_namespace({"metadata": {"name": "weir"}})
            control.apply(ROOT / "daemonset/base/rbac.yaml")
            town = Town(control, given.nodes)
            town.fill()
            print(f"{town.pods} pods written, {time.monotonic() - began:.0f} s", flush=True)
            control.start()
            token = folder / "token"
            token.write_text(control.token("weir", "weir"))
            where = Where(control.url, token, control.ca)
            figures = {}
            figures["direct"] = _agents(where, control.server_pid, town, netns, given.seconds, given.agents)
            print(figures["direct"], flush=True)
            before = cpu(control.server_pid)
            with kube_cache(where, folder) as (cached, pid):
                cache_began = time.monotonic()
                measure.wait(lambda: measure.ready(cached))
                listed = time.monotonic() - cache_began, cpu(pid), cpu(control.server_pid) - before
                figures["cache"] = _agents(cached, pid, town, netns, given.seconds, given.agents)
                print(figures["cache"], flush=True)
                crowd = measure.crowd(cached, pid, town, given.seconds)
                print(crowd, flush=True)
                cache_memory = measure.resident(pid)
            server_memory = measure.resident(control.server_pid)[0]
            seconds = time.monotonic() - began
            whole = Whole(town.nodes, town.pods, town.services, town.bytes_of_a_pod, server_memory, seconds)
            cache = CacheFigures(*listed, *cache_memory, crowd[0], crowd[1], crowd[2])
            text = page(whole, figures["direct"], figures["cache"], cache)
            print(text)
            if given.nodes == _FULL:
                (ROOT / "docs/scale.md").write_text(text, encoding="utf-8")
        finally:
            control.close()


if __name__ == "__main__":
    main()
