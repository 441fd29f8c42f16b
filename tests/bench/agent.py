# SPDX-License-Identifier: Apache-2.0
"""Weir as the benchmarks run it: the whole agent, or only its kernel side."""

from __future__ import annotations

import contextlib
import http.client
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from tests.bench import spaces
from tests.bench.figures import Bench
from tests.kernel.peers.netns import Netns
from weir.kernel import bpf, side
from weir.kernel.options import KernelOptions, default_folds
from weir.kernel.side import KernelSide
from weir.kernel.stats import ProgramStats

_PORT = 10435


class Agent:
    """A running ``weir run`` that listens in a namespace of its own."""

    def __init__(self, child: subprocess.Popen[str], home: Netns, started: float) -> None:
        self._child, self._home = child, home
        self.started = started

    def get(self, path: str, port: int = _PORT, **headers: str) -> tuple[int, bytes]:
        """Status and body."""
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        connection.sock = spaces.socket_in(self._home)
        try:
            connection.sock.connect(("127.0.0.1", port))
            connection.request("GET", path, headers=headers)
            reply = connection.getresponse()
            return reply.status, reply.read()
        finally:
            connection.close()

    def wait_ready(self, seconds: float = 30) -> float:
        """Seconds from the process' start until /readyz says yes."""
        while time.monotonic() < self.started + seconds:
            with contextlib.suppress(OSError):
                if self.get("/readyz")[0] == 200:
                    return time.monotonic() - self.started
            if self._child.poll() is not None:
                said = self._child.stderr.read() if self._child.stderr else ""
                raise RuntimeError(f"weir run ended with {self._child.returncode}: {said[-500:]}")
            time.sleep(0.005)
        raise TimeoutError("weir run is not ready")

    def cpu(self) -> float:
        """CPU seconds of all its threads so far; children not included."""
        tasks = Path(f"/proc/{self._child.pid}/task").iterdir()
        return sum(int((t / "schedstat").read_text(encoding="ascii").split()[0]) for t in tasks) / 1e9

    def memory(self) -> dict[str, float]:
        """MB (10^6 bytes) resident, by the names of proc(5): VmRSS, RssAnon, RssFile, RssShmem, VmHWM."""
        text = Path(f"/proc/{self._child.pid}/status").read_text(encoding="utf-8")
        rows = (line.split() for line in text.splitlines() if line.startswith(("VmRSS", "Rss", "VmHWM")))
        return {row[0].rstrip(":"): int(row[1]) * 1024 / 1e6 for row in rows}


@contextlib.contextmanager
def running(bench: Bench, *options: str, instance: str = "", interval: float = 1.0) -> Iterator[Agent]:
    """``weir run`` scoped to the bench's namespace; ready. With ``instance`` its pins stay after it."""
    chosen = instance or spaces.name()
    command = spaces.inside(
        bench.agent_netns, sys.executable, "-m", "weir", "run", "--instance", chosen, "--netns",
        str(bench.netns.path), "--listen", f"127.0.0.1:{_PORT}", "--interval", str(interval),
        "--log-level", "warning", *options,
    )  # fmt: skip
    started = time.monotonic()
    try:
        with spaces.process(command, bench.cache) as child:
            yield Agent(child, bench.agent_netns, started)
    finally:
        if not instance:
            unload(chosen)


def unload(instance: str) -> None:
    """Remove every trace of an instance."""
    side.ready(instance)[0].remove()


@contextlib.contextmanager
def loaded(**options: object) -> Iterator[KernelSide]:
    """Only the kernel side, removed at the end; ``options`` of KernelOptions."""
    instance, cgroup2 = side.ready(spaces.name())
    try:
        facts = side.load(instance, kernel_options(**options), cgroup2)
        if any(facts["planes"].values()):
            raise RuntimeError(f"a plane is down: {facts['planes']}")
        kernel = KernelSide(instance)
        try:
            yield kernel
        finally:
            kernel.close()
    finally:
        instance.remove()


def kernel_options(**options: object) -> KernelOptions:
    """As ``weir run`` has them by default."""
    return replace(KernelOptions(folds=default_folds()), **options)  # type: ignore[arg-type]


@contextlib.contextmanager
def statistics() -> Iterator[None]:
    """BPF run-time statistics are on."""
    fd = bpf.enable_stats()
    try:
        yield
    finally:
        os.close(fd)


def gained(before: tuple[ProgramStats, ...], after: tuple[ProgramStats, ...]) -> dict[str, tuple[int, int]]:
    """Program -> (ns, runs) between two readings."""
    old = {p.name: p for p in before}
    return {p.name: (p.run_ns - old[p.name].run_ns, p.runs - old[p.name].runs) for p in after}
