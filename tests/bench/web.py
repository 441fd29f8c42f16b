# SPDX-License-Identifier: Apache-2.0
"""HTTP through nginx at full load: without Weir, with it, and through a pair of sidecars, in turns."""

from __future__ import annotations

import re
import shutil
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.bench import agent, spaces
from tests.bench.figures import Bench, Budget, Section, interval
from tests.bench.loads import until_open
from tests.kernel.peers.netns import run

_SERVER, _FAR, _NEAR, _TLS = 8080, 8081, 8082, 8443
_SECONDS = 2.0
_NGINX = """
daemon off; master_process off; pid {home}/nginx.pid; error_log {home}/nginx.log;
events {{ worker_connections 512; }}
http {{
  access_log off; keepalive_requests 1000000000;
  client_body_temp_path {home}/body; proxy_temp_path {home}/proxy; fastcgi_temp_path {home}/fast;
  uwsgi_temp_path {home}/uwsgi; scgi_temp_path {home}/scgi;
  server {{
    listen {port}; listen {tls} ssl; ssl_certificate {home}/cert.pem; ssl_certificate_key {home}/key.pem;
    location / {{ return 200 "{body}"; }}
  }}
}}"""
_HAPROXY = """
global
  nbthread 1
defaults
  mode http
  timeout connect 5s
  timeout client 60s
  timeout server 60s
  http-reuse always
listen far
  bind 127.0.0.1:{far}
  server one 127.0.0.1:{server}
"""
#: Condition -> options of the agent; None: no agent.
_AGENTS: dict[str, tuple[str, ...] | None] = {
    "off (noise)": None, "without requests": ("--no-requests",), "with requests": (),
    "with 100 routes": (*(f"--route=/shop/v{n}/users/{{id}}/orders/{{id}}" for n in range(99)), "--route=/"),
    "with a tap": (),
}  # fmt: skip
_TAP = "with a tap"
_SIDECARS = "sidecar pair"
_TLS_AGENTS: dict[str, tuple[str, ...] | None] = {
    "off (noise)": None, "packets only": (), "within TLS": ("--tls",),
}  # fmt: skip
_KEY = ("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
        "-subj", "/CN=bench", "-days", "2")  # fmt: skip


@dataclass(frozen=True)
class Run:
    """One run of wrk: requests a second, microseconds of its median and 99th percentile; the agent's CPU."""

    rate: float
    p50: float
    p99: float
    agent: float = 0.0


@contextmanager
def _servers(bench: Bench) -> Iterator[None]:
    """nginx on one CPU; two haproxies, each a process of its own, as sidecars are."""
    home = bench.cache
    (home / "nginx.conf").write_text(_NGINX.format(home=home, port=_SERVER, tls=_TLS, body="x" * 612))
    run(*_KEY, "-keyout", str(home / "key.pem"), "-out", str(home / "cert.pem"))
    (home / "lib").mkdir(exist_ok=True)
    for library in Path("/usr/lib").glob("*-linux-gnu/libssl.so.3"):  # nobody else's processes meet a probe
        shutil.copy(library, home / "lib")
    configs = {_FAR: _SERVER, _NEAR: _FAR}
    commands = [["nginx", "-c", str(home / "nginx.conf"), "-e", str(home / "nginx.log")]]
    for port, behind in configs.items():
        config = home / f"haproxy-{port}.cfg"
        config.write_text(_HAPROXY.format(far=port, server=behind))
        commands.append(["haproxy", "-db", "-f", str(config)])
    with ExitStack() as stack:
        for number, command in enumerate(commands):
            inside = spaces.inside(bench.netns, *_own(bench), *command, cpu=None if number else 0)
            stack.enter_context(
                spaces.process(inside, home, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            )
        for port in (_SERVER, *configs):
            until_open(bench, port)
        yield


def _own(bench: Bench) -> tuple[str, str]:
    return "env", f"LD_LIBRARY_PATH={bench.cache}/lib"


def _wrk(bench: Bench, port: int) -> Run:
    seconds, scheme = 1 if bench.quick else _SECONDS, "https" if port == _TLS else "http"
    url = f"{scheme}://127.0.0.1:{port}/"
    command = [*_own(bench), "wrk", "-t1", "-c8", f"-d{seconds:.0f}s", "--latency", url]
    said = run(*spaces.inside(bench.netns, *command, cpu=1))
    rate = re.search(r"Requests/sec:\s+([\d.]+)", said)
    assert rate is not None, said
    return Run(float(rate[1]), _us(said, "50%"), _us(said, "99%"))


def _us(said: str, line: str) -> float:
    found = re.search(rf"^\s+{line}\s+([\d.]+)(us|ms|s)$", said, re.MULTILINE)
    assert found is not None, said
    return float(found[1]) * {"us": 1, "ms": 1e3, "s": 1e6}[found[2]]


def _once(bench: Bench, condition: str, port: int) -> Run:
    if condition == _SIDECARS:
        return _wrk(bench, _NEAR)
    options = (_TLS_AGENTS if port == _TLS else _AGENTS)[condition]
    if options is None:
        return _wrk(bench, port)
    instance = spaces.name()
    with ExitStack() as stack:
        stack.callback(agent.unload, instance)
        running = stack.enter_context(agent.running(bench, *options, instance=instance))
        running.wait_ready()
        if condition == _TAP:
            stack.enter_context(_tap(bench, instance))
        if "--tls" in options:
            while b'weir_agent_tls_files{library="openssl"} 1' not in running.get("/metrics")[1]:
                time.sleep(0.1)
        before, began = running.cpu(), time.monotonic()
        done = _wrk(bench, port)
        used = (running.cpu() - before) / (time.monotonic() - began)
    return Run(done.rate, done.p50, done.p99, used)


@contextmanager
def _tap(bench: Bench, instance: str) -> Iterator[None]:
    """`weir tap` of that agent, from its first line on."""
    command = spaces.inside(bench.agent_netns, sys.executable, "-m", "weir", "tap", "--instance", instance)
    with spaces.process(command, bench.cache, stdout=subprocess.PIPE) as tap:
        begun = threading.Event()

        def read() -> None:
            for _ in tap.stdout or ():
                begun.set()

        reader = threading.Thread(target=read)
        reader.start()
        try:
            for _ in range(10):
                _wrk(bench, _SERVER)
                if begun.is_set():
                    break
            assert begun.is_set(), "the tap shows nothing"
            yield
        finally:
            tap.terminate()
            reader.join()


def _rounds(bench: Bench, names: Sequence[str], port: int) -> dict[str, list[tuple[Run, Run]]]:
    """Condition -> (its run, the mean of those without anything just before and after it)."""
    found: dict[str, list[tuple[Run, Run]]] = {name: [] for name in names}
    _wrk(bench, port)
    before = _wrk(bench, port)
    for number in range(bench.size(9, 1)):
        turn = number % len(names)
        for name in [*names[turn:], *names[:turn]]:
            done = _once(bench, name, port)
            after = _wrk(bench, port)
            off = Run(*(statistics.mean(pair) for pair in zip(_plain(before), _plain(after), strict=True)))
            found[name].append((done, off))
            before = after
    return found


def _plain(one: Run) -> tuple[float, float, float]:
    return one.rate, one.p50, one.p99


def _of(values: Sequence[float], form: str) -> str:
    low, high = interval(values)
    return f"{form} ({form} to {form})".format(statistics.median(values), low, high)


_TEXT = """
wrk with 8 connections on one CPU asks nginx on the other one for 612 bytes; each run is compared with the
mean of those without anything just before and after it, and the order turns. `with requests` is
`weir run --interval 1` as it is by default; both ends are on this host, so each request is read twice, at
the client and at the server. `with 100 routes`: with as many patterns of `--route`, of which the last one
fits. `with a tap`: `weir tap` shows 100 requests a second meanwhile. The sidecar pair are two haproxies in
front of nginx, which everything passes. wrk's own clock tells the latency. In brackets: the interval that
holds the median with 95 % confidence.
"""


def measure(bench: Bench) -> Section:
    """Throughput, latency and the agent's CPU time."""
    section = Section("HTTP through nginx, paired")
    with _servers(bench):
        found = _rounds(bench, [*_AGENTS, _SIDECARS], _SERVER)
    pairs = found["with requests"]
    section.budgets += _budgets(pairs, _ratios(pairs), [on.p50 - off.p50 for on, off in pairs])
    section.text(_TEXT.strip())
    section.table(_HEAD, _rows(found))
    return section


def measure_tls(bench: Bench) -> Section:
    """The same within TLS: what the probes cost at the full load of both ends."""
    section = Section("HTTPS through nginx, paired")
    with _servers(bench):
        found = _rounds(bench, [*_TLS_AGENTS], _TLS)
    section.text(_TLS_TEXT.strip())
    section.table(_HEAD, _rows(found))
    return section


_HEAD = (
    "",
    "runs",
    "requests/s",
    "of those without",
    "p50, µs",
    "more, µs",
    "p99, more, µs",
    "agent, of a core",
)
_TLS_TEXT = """
As above, over TLS 1.3 on connections that are kept, so that each request is a call of SSL_write and two of
SSL_read at each end, with a probe at the beginning and at the return of each call. `packets only` is
`weir run` as it is by default, where requests are turns of TLS records; `within TLS` with `--tls`.
"""


def _ratios(pairs: Sequence[tuple[Run, Run]]) -> list[float]:
    return [on.rate / off.rate for on, off in pairs]


def _rows(found: Mapping[str, Sequence[tuple[Run, Run]]]) -> list[tuple[object, ...]]:
    rows: list[tuple[object, ...]] = []
    for name, pairs in found.items():
        more50 = [on.p50 - off.p50 for on, off in pairs]
        more99 = [on.p99 - off.p99 for on, off in pairs]
        rows.append((
            name, len(pairs), f"{statistics.median(on.rate for on, _ in pairs):,.0f}",
            _of(_ratios(pairs), "{:.3f}"), f"{statistics.median(on.p50 for on, _ in pairs):.0f}",
            _of(more50, "{:+.1f}"), _of(more99, "{:+.0f}"),
            f"{statistics.median(on.agent for on, _ in pairs):.2%}",
        ))  # fmt: skip
    return rows


def _budgets(
    pairs: Sequence[tuple[Run, Run]], ratios: Sequence[float], more: Sequence[float]
) -> Iterator[Budget]:
    yield _budget(
        "HTTP through nginx, throughput with requests", "≥ 0.96", ratios, 0.96, "{:.3f}", least=True
    )
    yield _budget("HTTP through nginx, p50 with requests", "≤ + 5 µs", more, 5, "{:+.1f} µs", least=False)
    rate = statistics.median(on.rate for on, _ in pairs)
    used = statistics.median(on.agent for on, _ in pairs)
    met = used <= 0.01 if rate >= 100_000 else None
    note = "" if met is not None else "nginx gave fewer requests/s here; the cost does not grow with them"
    yield Budget("agent CPU at 100,000 HTTP requests/s, interval 1 s", "≤ 1 % of a core",
                 f"{used:.2%} at {rate:,.0f} requests/s", met, note)  # fmt: skip


def _budget(what: str, budget: str, values: Sequence[float], bound: float, form: str, least: bool) -> Budget:
    low, high = interval(values)
    clear = len(values) >= 6 and not low < bound < high
    met = (statistics.median(values) >= bound) == least if clear else None
    note = "" if met else "both ends are on this host; the hooks of UDP and NAT are in it"
    return Budget(
        what, budget, f"{form} ({form} to {form})".format(statistics.median(values), low, high), met, note
    )
