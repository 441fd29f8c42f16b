# SPDX-License-Identifier: Apache-2.0
"""How much of the machine the benchmark had to itself, and what CPU time it took."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.bench import spaces

_TICK = 1 / os.sysconf("SC_CLK_TCK")
_CPUS = os.cpu_count() or 1


@dataclass(frozen=True)
class Usage:
    """A reading: CPU seconds of the benchmark and of all (what the hypervisor took included), and when."""

    own: float
    total: float
    at: float

    def since(self, before: Usage) -> Usage:
        """What came between."""
        return Usage(self.own - before.own, self.total - before.total, self.at - before.at)

    @property
    def others(self) -> float:
        """Share of the machine's CPU time that went to others, 0 to 1."""
        return max(0.0, (self.total - self.own) / max(1e-9, self.at * _CPUS))


class Meter:
    """Reads the CPU time of one cgroup v2, in which the whole benchmark runs, and of the machine."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def read(self) -> Usage:
        """Now."""
        stat = (self._folder / "cpu.stat").read_text(encoding="ascii").split()
        first = Path("/proc/stat").read_text(encoding="ascii").split("\n", 1)[0].split()
        busy = sum(int(first[at]) for at in (1, 2, 3, 8)) * _TICK  # user, nice, system, steal
        return Usage(int(stat[1]) / 1e6, busy, time.monotonic())


@contextlib.contextmanager
def own_cgroup() -> Iterator[Meter]:
    """This process and its children are in a cgroup of their own."""
    lines = Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    home = next(line[3:] for line in lines if line.startswith("0::"))
    with spaces.make_cgroup() as folder:
        procs = folder / "cgroup.procs"
        procs.write_text(str(os.getpid()))
        try:
            yield Meter(folder)
        finally:
            back = folder.parent / home.lstrip("/") / "cgroup.procs"
            back.write_text(str(os.getpid()))
