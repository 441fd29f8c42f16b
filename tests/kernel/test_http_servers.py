# SPDX-License-Identifier: Apache-2.0
"""HTTP between real servers and clients at full load: Weir's counts are those of the server's own log."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest

from tests.kernel.agents import until
from tests.kernel.peers import slow_http
from tests.kernel.peers.netns import Netns
from tests.kernel.peers.process import ROOT
from tests.kernel.watch import Watch, nothing_lost
from weir.kernel.layout import DESTINATION, SOURCE
from weir.views.requests import durations_of, percentile

NGINX, PROXY = 8080, 8081
NGINX_CONF = """
daemon off; master_process off; pid {home}/pid; error_log {home}/error.log;
events {{ worker_connections 512; }}
http {{
  log_format counts '$request_method $status'; access_log {home}/access.log counts;
  keepalive_requests 10000000; client_max_body_size 0; client_body_in_file_only off;
  client_body_temp_path {home}/body; proxy_temp_path {home}/proxy; fastcgi_temp_path {home}/fast;
  uwsgi_temp_path {home}/uwsgi; scgi_temp_path {home}/scgi;
  server {{
    listen {port}; root {home}/html;
    location /gone {{ return 404 gone; }} location /none {{ return 204; }}
    location /down {{ return 503 down; }}
    location /moved {{ return 302 /; }}
    location /up {{ proxy_pass http://127.0.0.1:{port}/sink; }} location /sink {{ return 201 done; }}
    gzip on; gzip_min_length 1; gzip_types text/plain;
  }}
}}"""
_HAPROXY = """
global
  maxconn 400
defaults
  mode http
  timeout connect 5s
  timeout client 30s
  timeout server 30s
frontend here
  bind 127.0.0.1:{front}
  default_backend there
backend there
  http-reuse always
  server nginx 127.0.0.1:{back}
"""
#: Requests that h2load spreads over connections and addresses, round and round.
_REQUESTS = 70_007
_PATHS = ("/", "/gone", "/none", "/down", "/moved", "/page.txt", "/sink")


def needed(*tools: str) -> None:
    """A skip by name where one of them is not installed (scripts/test installs them)."""
    for tool in tools:
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed")


@contextlib.contextmanager
def running(place: Netns, port: int, *command: str) -> Iterator[subprocess.Popen[str]]:
    """A server in the namespace, from when it listens."""
    process = subprocess.Popen(
        ["nsenter", f"--net={place.path}", "--", *command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True,
    )  # fmt: skip
    try:
        until(lambda: f":{port} " in place.run("ss", "-Hltn") or process.poll() is not None)
        assert process.poll() is None, process.communicate()[0]
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(10)
        assert process.stdout is not None
        process.stdout.close()


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("nginx")
    (made / "html").mkdir()
    (made / "html/index.html").write_text("x" * 612)
    (made / "html/page.txt").write_text("compress me " * 500)
    (made / "nginx.conf").write_text(NGINX_CONF.format(home=made, port=NGINX))
    (made / "haproxy.cfg").write_text(_HAPROXY.format(front=PROXY, back=NGINX))
    return made


@pytest.fixture(scope="module")
def nginx(place: Netns, home: Path) -> Iterator[Path]:
    """Its log."""
    needed("nginx", "h2load")
    with running(place, NGINX, "nginx", "-c", str(home / "nginx.conf"), "-e", str(home / "error.log")):
        yield home / "access.log"


def logged(log: Path) -> Counter[tuple[str, str, int]]:
    """What the server says that it answered, and begin the log anew."""
    time.sleep(0.2)
    lines = log.read_text().split("\n")[:-1]
    with log.open("w"):
        pass
    return Counter(("http", line.split()[0], int(line.split()[1])) for line in lines)


def load(place: Netns, *more: str, port: int = NGINX) -> Counter[int]:
    """h2load at full load, to the last answer; the answers that it counted, by hundreds."""
    urls = (f"http://127.0.0.1:{port}{path}" for path in _PATHS)
    said = place.run("h2load", "--h1", f"-n{_REQUESTS}", "-c13", *more, *urls)
    found = re.search(r"status codes: (\d+) 2xx, (\d+) 3xx, (\d+) 4xx, (\d+) 5xx", said)
    assert found, said
    return Counter(dict(zip((2, 3, 4, 5), map(int, found.groups()), strict=True)))


def by_hundreds(counts: Mapping[tuple[str, str, int], int]) -> Counter[int]:
    found: Counter[int] = Counter()
    for (_, _, status), n in counts.items():
        found[status // 100] += n
    return found


def served(watch: Watch, place: Netns, port: int = NGINX) -> dict[tuple[str, str, int], int]:
    """What both ends counted, which must be the same."""
    found = watch.requests(place, DESTINATION, port)
    assert found == watch.requests(place, SOURCE, port)
    return found


@pytest.mark.parametrize(
    "more",
    [(), ("-m13",), ("-H:method: POST",), ("-HAccept-Encoding: gzip",)],
    ids=["", "pipelined", "POST", "gzip"],
)
def test_nginx_at_full_load(watch: Watch, place: Netns, nginx: Path, more: tuple[str, ...]) -> None:
    logged(nginx)
    asked = load(place, *more)
    found = served(watch, place)
    assert found == logged(nginx)
    assert by_hundreds(found) == asked
    nothing_lost(watch, "reset_unmatched")


def test_uploads_and_downloads(watch: Watch, place: Netns, home: Path, nginx: Path) -> None:
    """Bodies over many segments, chunked ones, 100-continue, through nginx as its own client."""
    needed("curl")
    logged(nginx)
    (home / "html/large").write_bytes(b"\r\nHTTP/1.1 200 OK\r\n\r\n" * 100_000)
    url = f"http://127.0.0.1:{NGINX}"
    chunked = ["-H", "Transfer-Encoding: chunked"]  # which two CPUs meet on now and then
    for how in ([], *[chunked] * 23, ["-H", "Expect: 100-continue"]):
        place.run("curl", "-sf", *how, "-T", str(home / "html/large"), f"{url}/up")
    place.run("curl", "-sf", "-o", "/dev/null", "-o", "/dev/null", f"{url}/large", f"{url}/large")
    place.run("curl", "-sf", "--compressed", "-o", "/dev/null", f"{url}/page.txt")
    assert served(watch, place) == logged(nginx) == {
        ("http", "PUT", 201): 2 * 25, ("http", "GET", 200): 3,
    }  # fmt: skip
    nothing_lost(watch, "reset_unmatched")


def test_behind_haproxy(watch: Watch, place: Netns, home: Path, nginx: Path) -> None:
    """Four ends of two hops at full load."""
    needed("haproxy")
    logged(nginx)
    with running(place, PROXY, "haproxy", "-db", "-f", str(home / "haproxy.cfg")):
        asked = load(place, "-m7", port=PROXY)
        own = logged(nginx)
        assert by_hundreds(own) == asked
        assert served(watch, place) == own
        assert served(watch, place, PROXY) == own
    nothing_lost(watch, "reset_unmatched")


def test_percentiles(watch: Watch, place: Netns) -> None:
    """Within 5 % of what the clients measured (see :mod:`slow_http`): answers take 5 to 180 ms, so that the
    clients' own time for asking and hearing is small beside them.
    """
    port, took = json.loads(place.run("env", f"PYTHONPATH={ROOT}", sys.executable, "-m", slow_http.__name__))
    (row,) = watch.request_rows(place, SOURCE, port)
    assert int(row["duration"].sum()) == len(took) == slow_http.CLIENTS * slow_http.REQUESTS
    for q in (0.5, 0.9, 0.95, 0.99):
        estimate = percentile(durations_of(row["duration"]), q)
        assert estimate is not None
        exact = float(np.quantile(took, q, method="inverted_cdf"))
        assert abs(estimate / exact - 1) < 0.05, (q, estimate, exact)
