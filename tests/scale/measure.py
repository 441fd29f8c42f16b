# SPDX-License-Identifier: Apache-2.0
"""What a large cluster costs an agent, the API server and ``weir kube-cache``."""

from __future__ import annotations

import contextlib
import json
import ssl
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.bench import spaces
from tests.kernel.agents import ASKING, Agent, command, environment
from tests.kernel.peers.netns import Netns
from tests.scale.town import Town, node_name

EVENTS, _OBJECTS = "weir_agent_kubernetes_events_total", "weir_agent_kubernetes_objects"
_RATE = 1000
#: Longer than the agent's interval: the page shows all that it heard.
_SETTLE = 7.0


@dataclass(frozen=True)
class Where:
    """How somebody reaches the API, or a cache of it."""

    url: str
    token: Path
    ca: Path | None = None

    def options(self) -> list[str]:
        ca = ["--ca-file", str(self.ca)] if self.ca else []
        return ["--api-server", self.url, "--token-file", str(self.token), *ca]


def cpu(pid: int) -> float:
    """CPU seconds of a process until now."""
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


def resident(pid: int) -> tuple[float, float]:
    """MB now, and at most until now."""
    lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    found = dict(line.split(":", 1) for line in lines)
    now, most = (int(found[key].split()[0]) * 1024 / 1e6 for key in ("VmRSS", "VmHWM"))
    return now, most


@dataclass(frozen=True)
class Start:
    """One agent from its start to all names: seconds, MB, and the CPU seconds of it and of who was asked."""

    seconds: float
    resident: float
    most: float
    own: float
    asked: float


@dataclass(frozen=True)
class Load:
    """A stretch of events: how many came, and CPU seconds for 1,000 of them, by process."""

    rate: float
    heard: float
    cost: dict[str, float]


@contextlib.contextmanager
def agent(where: Where, netns: Netns) -> Iterator[Agent]:
    name = spaces.name()
    try:
        options = [*where.options(), "--node-name", node_name(7), "--interval", "5"]
        with Agent(name, (netns,), *options, env=ASKING).ready() as running:
            yield running
    finally:
        subprocess.run(
            command("unload", "--instance", name), check=True, env=environment(**ASKING), capture_output=True
        )


def synced(running: Agent, town: Town) -> Callable[[], bool]:
    def holds() -> bool:
        page = running.page()
        return page.sum(EVENTS, event="lists") == 5 and page.sum(_OBJECTS, kind="pods") == town.pods

    return holds


def wait(holds: Callable[[], bool], seconds: float = 300) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "timed out"
        time.sleep(0.2)


def started(running: Agent, town: Town, asked: int, before: float, began: float) -> Start:
    """Wait until all is known."""
    wait(synced(running, town))
    seconds = time.monotonic() - began
    now, most = resident(running.pid)
    return Start(seconds, now, most, cpu(running.pid), cpu(asked) - before)


def events(town: Town, processes: dict[str, int], seconds: float, heard: Callable[[], float]) -> Load:
    """Pods are replaced, 1,000 events a second."""
    time.sleep(_SETTLE)
    before, heard_before = {name: cpu(pid) for name, pid in processes.items()}, heard()
    began, made, at = time.monotonic(), 0, 0
    while time.monotonic() < began + seconds:
        made += town.lives(range(at, at + 50))
        at = (at + 50) % (town.pods - 50)
        time.sleep(max(0.0, began + made / _RATE - time.monotonic()))
    rate = made / (time.monotonic() - began)
    last = -1.0
    while (now := heard()) > last:  # until all has come that comes
        last = now
        time.sleep(_SETTLE)
    cost = {name: (cpu(pid) - before[name]) / made * 1000 for name, pid in processes.items()}
    return Load(rate, (heard() - heard_before) / made, cost)


class Readers:
    """Watchers that read and forget, in processes of their own: what any client costs a server."""

    def __init__(self, where: Where, path: str, count: int, version: str) -> None:
        token = where.token.read_text().strip()
        url = f"{where.url}{path}?watch=1&resourceVersion={version}&allowWatchBookmarks=true"
        ca = ["--cacert", str(where.ca)] if where.ca else []
        self._processes = [
            subprocess.Popen(
                ["curl", "-sN", "-o", "/dev/null", *ca, "-H", f"Authorization: Bearer {token}", url]
            )
            for _ in range(count)
        ]

    def close(self) -> None:
        for process in self._processes:
            process.kill()
            process.wait()


def fetch(where: Where, path: str) -> bytes:
    """The body of one GET."""
    request = urllib.request.Request(f"{where.url}{path}")
    request.add_header("Authorization", f"Bearer {where.token.read_text().strip()}")
    context = ssl.create_default_context(cafile=str(where.ca)) if where.ca else None
    with urllib.request.urlopen(request, timeout=300, context=context) as reply:
        return bytes(reply.read())


def version(where: Where) -> str:
    """The resource version of now."""
    found = json.loads(fetch(where, f"/api/v1/pods?fieldSelector=spec.nodeName%3D{node_name(7)}"))
    return str(found["metadata"]["resourceVersion"])


def ready(where: Where) -> bool:
    try:
        return bool(fetch(where, "/readyz"))
    except OSError:
        return False


def crowd(where: Where, pid: int, town: Town, seconds: float) -> tuple[int, float, Load]:
    """Many watchers of a cache in one process: (their number, kB of the cache's memory for each, events)."""
    count = 500
    before = resident(pid)[0]
    token, now = where.token.read_text().strip(), version(where)
    script = _CROWD.format(url=where.url, version=now, token=token, count=count)
    process = subprocess.Popen(["python3", "-c", script], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline().strip() == "open"
        each = (resident(pid)[0] - before) * 1000 / count
        return count, each, events(town, {"asked": pid}, seconds, lambda: 0.0)
    finally:
        process.kill()
        process.wait()


_CROWD = """
import asyncio, urllib.parse
async def one(at):
    reader, writer = await asyncio.open_connection(at.hostname, at.port)
    writer.write(b"GET /api/v1/pods?watch=1&timeoutSeconds=3600&resourceVersion={version} HTTP/1.1\\r\\n"
                 b"Host: x\\r\\nAuthorization: Bearer {token}\\r\\n\\r\\n")
    await reader.readuntil(b"\\r\\n\\r\\n")
    return reader, writer
async def forget(reader):
    while await reader.read(1 << 16):
        pass
async def main():
    at = urllib.parse.urlsplit("{url}")
    opened = [await one(at) for _ in range({count})]
    print("open", flush=True)
    await asyncio.gather(*(forget(reader) for reader, _ in opened))
asyncio.run(main())
"""
