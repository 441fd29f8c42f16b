# SPDX-License-Identifier: Apache-2.0
"""Protocols beside HTTP/1 at full load, with and without requests, in turns."""

from __future__ import annotations

import math
import os
import re
import shutil
import statistics
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from tests.bench import agent, spaces
from tests.bench.figures import Bench, Section, interval
from tests.bench.loads import until_open
from tests.kernel.peers.netns import run

_HTTP2, _POSTGRESQL, _DNS = 8090, 5432, 5300
_SECONDS = 2
_NGINX = """
daemon off; master_process off; pid {home}/h2.pid; error_log {home}/h2.log;
events {{ worker_connections 512; }}
http {{
  access_log off; keepalive_requests 1000000000;
  client_body_temp_path {home}/b2; proxy_temp_path {home}/p2; fastcgi_temp_path {home}/f2;
  uwsgi_temp_path {home}/u2; scgi_temp_path {home}/s2;
  server {{ listen {port} http2; location / {{ return 200 "{body}"; }} }}
}}"""
_UNBOUND = """
server:
  directory: "{home}"
  chroot: ""
  username: ""
  pidfile: ""
  do-daemonize: no
  interface: 127.0.0.1@{port}
  access-control: 127.0.0.0/8 allow
  local-zone: "test." static
  local-data: "a.test. A 192.0.2.1"
"""
#: Condition -> options of the agent; None: no agent.
_AGENTS: dict[str, tuple[str, ...] | None] = {
    "off (noise)": None, "without requests": ("--no-requests",), "with requests": (),
}  # fmt: skip
#: One run of so many seconds: requests a second.
Once = Callable[[int], float]


def _number(said: str, pattern: str) -> float:
    found = re.search(pattern, said)
    assert found is not None, said
    return float(found[1])


@contextmanager
def _http2(bench: Bench) -> Iterator[Once]:
    """nginx under h2load: 8 connections, 4 streams at once on each."""
    conf = bench.cache / "h2.conf"
    conf.write_text(_NGINX.format(home=bench.cache, port=_HTTP2, body="x" * 612))
    server = spaces.inside(bench.netns, "nginx", "-c", str(conf), "-e", str(bench.cache / "h2.log"), cpu=0)
    with spaces.process(server, bench.cache, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL):
        until_open(bench, _HTTP2)

        def once(seconds: int) -> float:
            load = ("h2load", "-c8", "-m4", f"-D{seconds}", f"http://127.0.0.1:{_HTTP2}/")
            return _number(run(*spaces.inside(bench.netns, *load, cpu=1)), r"([\d.]+) req/s")

        yield once


@contextmanager
def _postgresql(bench: Bench) -> Iterator[Once]:
    """PostgreSQL under pgbench: prepared SELECTs of one row by 8 clients."""
    binary = max(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
    as_user = ("setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups")
    home = Path(tempfile.mkdtemp(prefix=spaces.PREFIX))  # where another user can go
    shutil.chown(home, "postgres", "postgres")
    try:
        data = ("-D", str(home / "data"))
        makes = [*as_user, str(binary.with_name("initdb")), *data, "-A", "trust", "-N"]
        env = {**os.environ, "LC_ALL": "C"}
        subprocess.run(makes, check=True, capture_output=True, cwd="/", env=env)
        options = (f"-cport={_POSTGRESQL}", "-clisten_addresses=127.0.0.1", "-cfsync=off",
                    f"-cunix_socket_directories={home}")  # fmt: skip
        server = spaces.inside(bench.netns, *as_user, str(binary), *data, *options, cpu=0)
        with spaces.process(server, bench.cache, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL):
            until_open(bench, _POSTGRESQL)
            client = ("pgbench", "-h", "127.0.0.1", "-U", "postgres", "postgres")
            run(*spaces.inside(bench.netns, *client, "-i", "-q"))

            def once(seconds: int) -> float:
                load = (*client, "-n", "-S", "-Mprepared", "-c8", f"-T{seconds}")
                return _number(run(*spaces.inside(bench.netns, *load, cpu=1)), r"tps = ([\d.]+)")

            yield once
    finally:
        shutil.rmtree(home)


@contextmanager
def _dns(bench: Bench) -> Iterator[Once]:
    """unbound under dnsperf: queries over UDP, 8 sockets."""
    conf, asked = bench.cache / "unbound.conf", bench.cache / "queries"
    conf.write_text(_UNBOUND.format(home=bench.cache, port=_DNS))
    asked.write_text("a.test A\nnone.test AAAA\n")
    server = spaces.inside(bench.netns, "unbound", "-c", str(conf), cpu=0)
    with spaces.process(server, bench.cache, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL):
        until_open(bench, _DNS)

        def once(seconds: int) -> float:
            load = ("dnsperf", "-s127.0.0.1", f"-p{_DNS}", f"-d{asked}", "-c8", "-T1", f"-l{seconds}")
            return _number(run(*spaces.inside(bench.netns, *load, cpu=1)), r"Queries per second:\s+([\d.]+)")

        yield once


_LOADS: dict[str, Callable[[Bench], AbstractContextManager[Once]]] = {
    "HTTP/2, nginx under h2load": _http2,
    "PostgreSQL under pgbench": _postgresql,
    "DNS, unbound under dnsperf": _dns,
}


def _run(bench: Bench, once: Once, options: tuple[str, ...] | None) -> float:
    seconds = bench.size(_SECONDS, 1)
    if options is None:
        return once(seconds)
    with agent.running(bench, *options) as running:
        running.wait_ready()
        return once(seconds)


def _pairs(bench: Bench, once: Once) -> dict[str, list[tuple[float, float]]]:
    """Condition -> (its rate, the mean of those without anything just before and after it)."""
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in _AGENTS}
    once(1)
    before = _run(bench, once, None)
    for number in range(bench.size(7, 1)):
        turn = number % len(_AGENTS)
        for name in [*[*_AGENTS][turn:], *[*_AGENTS][:turn]]:
            rate = _run(bench, once, _AGENTS[name])
            after = _run(bench, once, None)
            found[name].append((rate, math.fsum((before, after)) / 2))
            before = after
    return found


_TEXT = """
Each run is compared with the mean of those without anything just before and after it, and the order turns;
both ends are on this host, each on a CPU of its own, so each request is read twice. HTTP/2: nginx under
h2load, 8 connections, 4 streams at once on each. PostgreSQL: prepared SELECTs of one row by 8 clients of
pgbench. DNS: unbound under dnsperf, over UDP. In brackets: the interval that holds the median with 95 %
confidence.
"""


def measure(bench: Bench) -> Section:
    """Throughput of each protocol."""
    section, rows = Section("Other protocols, paired"), []
    for load, serves in _LOADS.items():
        with serves(bench) as once:
            found = _pairs(bench, once)
        for name, pairs in found.items():
            ratios = [on / off for on, off in pairs]
            low, high = interval(ratios)
            rate = statistics.median(on for on, _ in pairs)
            ratio = f"{statistics.median(ratios):.3f} ({low:.3f} to {high:.3f})"
            rows.append((load, name, len(pairs), f"{rate:,.0f}", ratio))
    section.text(_TEXT.strip())
    section.table(("load", "agent", "runs", "requests/s", "of those without"), rows)
    return section
