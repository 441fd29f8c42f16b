# SPDX-License-Identifier: Apache-2.0
"""HTTP/2 and gRPC between real servers and clients: Weir's counts are those of the server's own log."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.kernel.peers import grpc_calls
from tests.kernel.peers.netns import Netns
from tests.kernel.peers.process import ROOT
from tests.kernel.test_http_servers import NGINX, NGINX_CONF, by_hundreds, needed, running, served
from tests.kernel.watch import Watch, nothing_lost

PEERS = Path(__file__).parent / "peers"
_REQUESTS = 40_009
_PATHS = ("/", "/gone", "/none", "/down", "/moved", "/page.txt", "/sink")


@pytest.mark.parametrize("at_once", [1, 13])
def test_nginx_at_full_load(watch: Watch, place: Netns, tmp_path: Path, at_once: int) -> None:
    needed("nginx", "h2load")
    (tmp_path / "html").mkdir()
    (tmp_path / "html/index.html").write_text("x" * 612)
    (tmp_path / "html/page.txt").write_text("compress me " * 500)
    conf, log = tmp_path / "nginx.conf", tmp_path / "access.log"
    conf.write_text(
        NGINX_CONF.format(home=tmp_path, port=NGINX).replace(f"listen {NGINX};", f"listen {NGINX} http2;")
    )
    with running(place, NGINX, "nginx", "-c", str(conf), "-e", str(tmp_path / "error.log")):
        urls = (f"http://127.0.0.1:{NGINX}{path}" for path in _PATHS)
        said = place.run("h2load", f"-n{_REQUESTS}", "-c13", f"-m{at_once}", *urls)
        time.sleep(0.2)
    own = Counter(("http2", line.split()[0], int(line.split()[1])) for line in log.read_text().splitlines())
    asked = re.search(r"status codes: (\d+) 2xx, (\d+) 3xx, (\d+) 4xx, (\d+) 5xx", said)
    assert asked, said
    found = served(watch, place)
    assert found == own
    assert by_hundreds(found) == Counter(dict(zip((2, 3, 4, 5), map(int, asked.groups()), strict=True)))
    nothing_lost(watch, "reset_unmatched")


def http2_counts(said: str) -> tuple[int, dict[tuple[str, str, int], int]]:
    """What a peer printed: its port, and its counts as rows."""
    told = json.loads(said)
    counts = {("http2", what.split()[0], int(what.split()[1])): n for what, n in told["counts"].items()}
    return told["port"], counts


def test_go(watch: Watch, place: Netns, tmp_path: Path) -> None:
    """Go's encoder puts into its table what it can; 13 at once on one connection."""
    needed("go")
    env = {**os.environ, "GOFLAGS": "-mod=mod", "GO111MODULE": "off", "GOCACHE": "/var/cache/weir/go-build"}
    built = subprocess.run(["go", "build", "-o", str(tmp_path / "peer"), str(PEERS / "http2_go/main.go")],
                           env=env, capture_output=True, text=True, check=False)  # fmt: skip
    if "undefined: http.Protocols" in built.stderr:
        pytest.skip("this go is older than 1.24: its net/http has no HTTP/2 without TLS")
    assert not built.returncode, built.stderr
    port, own = http2_counts(place.run(str(tmp_path / "peer")))
    assert sum(own.values()) == 13 * 307
    assert served(watch, place, port) == own
    nothing_lost(watch, "reset_unmatched")


def test_node(watch: Watch, place: Netns) -> None:
    needed("node")
    port, own = http2_counts(place.run(str(shutil.which("node")), str(PEERS / "http2_node.mjs")))
    assert sum(own.values()) == 7 * 307
    assert served(watch, place, port) == own
    nothing_lost(watch, "reset_unmatched")


def test_grpc(watch: Watch, place: Netns) -> None:
    """Calls of all kinds end with the codes that the clients were told. A client whose time is up tells that
    to nobody: it cancels, unless its server tells it first that it was too late.
    """
    told = json.loads(place.run("env", f"PYTHONPATH={ROOT}", sys.executable, "-m", grpc_calls.__name__))
    codes = Counter({int(code): n for code, n in told["told"].items()})
    calls = grpc_calls.CHANNELS * grpc_calls.THREADS * grpc_calls.CALLS
    assert sum(codes.values()) == calls + 2 * grpc_calls.LATE
    found = served(watch, place, told["port"])
    cancelled = found["grpc", "", 2] - codes[1]
    assert 0 <= cancelled <= grpc_calls.LATE
    codes[1] += cancelled
    codes[4] -= cancelled
    assert found == {("grpc", "", code + 1): n for code, n in codes.items()}
    nothing_lost(watch, "reset_unmatched")
