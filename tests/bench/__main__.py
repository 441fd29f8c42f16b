# SPDX-License-Identifier: Apache-2.0
"""``python -m tests.bench [--quick] [NAME...]``: measure, print, and write docs/benchmarks.md."""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import socket
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path

from tests.bench import (
    document,
    drain,
    footprint,
    machine,
    paired,
    programs,
    protocols,
    scrape,
    spaces,
    start,
    web,
)
from tests.bench.figures import Bench, Section, verdict
from tests.bench.quiet import own_cgroup
from weir.kernel import mounts

BENCHES: dict[str, Callable[[Bench], Section]] = {
    "programs": programs.measure,
    "redis": paired.measure_redis,
    "iperf3": paired.measure_iperf,
    "web": web.measure,
    "tls": web.measure_tls,
    "protocols": protocols.measure,
    "drain": drain.measure,
    "scrape": scrape.measure,
    "footprint": footprint.measure,
    "start": start.measure,
}
_PAGE = spaces.ROOT / "docs/benchmarks.md"
_TOOLS = (
    "ip",
    "nsenter",
    "setpriv",
    "taskset",
    "redis-server",
    "redis-benchmark",
    "iperf3",
    "nginx",
    "haproxy",
    "openssl",
    "wrk",
    "h2load",
    "pgbench",
    "unbound",
    "dnsperf",
)


def _one(name: str, quick: bool, cache: Path) -> tuple[Section, str, float]:
    """One benchmark in fresh namespaces: its chapter, the load before it, seconds."""
    load, started = machine.load(), time.monotonic()
    with own_cgroup() as meter, spaces.make_netns() as netns, spaces.make_netns() as agents:
        section = BENCHES[name](Bench(quick, netns, agents, cache, meter))
    seconds = time.monotonic() - started
    print(f"## {section.title} ({name}, {seconds:.0f} s, load {load})\n", *section.lines, sep="\n")
    for budget in section.budgets:
        print(f"{verdict(budget.met)}: {budget.what} {budget.budget}: {budget.figure}")
    print(flush=True)
    return section, load, seconds


def _all(names: list[str], quick: bool) -> int:
    done, failed = {}, []
    with tempfile.TemporaryDirectory(prefix=spaces.PREFIX) as cache:
        for name in names:
            try:
                done[name] = _one(name, quick, Path(cache))
            except Exception:  # noqa: BLE001 the others are still worth measuring
                traceback.print_exc()
                failed.append(name)
    if done and not quick:
        document.write(_PAGE, done, tuple(BENCHES))
        print(f"written: {_PAGE.relative_to(spaces.ROOT)}")
    if failed:
        print(f"failed: {' '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def _alone() -> socket.socket:
    """A name that one process of a host can have, gone with it; OSError if another one has it."""
    name = socket.socket(socket.AF_UNIX)
    name.bind("\0weir-bench")
    return name


def main() -> int:
    """Exit code 0 if all that was asked for was measured, met or not; 1 if something failed."""
    parser = argparse.ArgumentParser(prog="scripts/bench", description="Measure what Weir costs.")
    known = ", ".join(BENCHES)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"some of: {known} (default: all)")
    parser.add_argument("--quick", action="store_true", help="a smoke run of about a minute; writes nothing")
    asked = parser.parse_args()
    if unknown := set(asked.names) - set(BENCHES):
        parser.error(f"no such benchmark: {', '.join(sorted(unknown))}; known: {known}")
    if os.geteuid() != 0:
        parser.error("must be root: namespaces and BPF programs are made")
    if missing := [tool for tool in _TOOLS if not shutil.which(tool)]:
        parser.error(f"not installed: {', '.join(missing)}; scripts/setup --tests installs them")
    try:
        alone = _alone()
    except OSError:
        parser.error("another run of this script is measuring on this host; wait for its end")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    hold = mounts.Hold()
    try:
        spaces.sweep()
        return _all([name for name in BENCHES if name in (asked.names or BENCHES)], asked.quick)
    finally:
        hold.release()
        alone.close()


if __name__ == "__main__":
    sys.exit(main())
