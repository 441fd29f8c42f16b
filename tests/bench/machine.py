# SPDX-License-Identifier: Apache-2.0
"""The machine in a few words, without its name."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from pathlib import Path

from tests.kernel.peers.netns import run


def _field(path: str, name: str, separator: str) -> str:
    for line in Path(path).read_text(encoding="utf-8").splitlines():
        key, found, value = line.partition(separator)
        if found and key.strip() == name:
            return value.strip().strip('"')
    return ""


def describe() -> list[tuple[str, str]]:
    """Rows (what, value)."""
    cpu = _field("/proc/cpuinfo", "model name", ":") or platform.machine()
    virtual = " (a virtual machine)" if "hypervisor" in _field("/proc/cpuinfo", "flags", ":").split() else ""
    memory = int(_field("/proc/meminfo", "MemTotal", ":").split()[0]) * 1024 / 1e9
    clock = Path("/sys/devices/system/clocksource/clocksource0/current_clocksource").read_text().strip()
    library = metadata.version("prometheus-client")
    redis = run("redis-server", "--version").split()[2].removeprefix("v=")
    iperf = run("iperf3", "--version").split()[1]
    return [
        ("CPU", f"{os.cpu_count()} × {cpu}{virtual}"),
        ("memory", f"{memory:.0f} GB"),
        ("kernel", f"Linux {platform.release().split('-')[0]}, {platform.machine()}, clock {clock}"),
        ("system", _field("/etc/os-release", "PRETTY_NAME", "=")),
        ("Python", platform.python_version()),
        ("beside it", f"redis {redis}, iperf3 {iperf}, prometheus_client {library}"),
    ]


def load() -> str:
    """Load averages of 1 and 5 minutes."""
    one, five, _ = os.getloadavg()
    return f"{one:.2f} / {five:.2f}"
