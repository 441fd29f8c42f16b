# SPDX-License-Identifier: Apache-2.0
"""Requests within TLS: what is counted is what servers and clients say of themselves.

All processes are the tests' own, with copies of the libraries: nothing else on the machine meets a probe.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kernel.agents import until
from tests.kernel.peers import tls_talk
from tests.kernel.peers.netns import Netns
from tests.kernel.peers.process import ROOT
from tests.kernel.test_http2_servers import PEERS, http2_counts
from tests.kernel.test_http_servers import NGINX_CONF, needed, running, served
from tests.kernel.watch import Watch, asking, nothing_lost
from weir.kernel import uprobes
from weir.kernel.layout import DESTINATION, SOURCE
from weir.tls.processes import Scope
from weir.tls.watch import TlsWatch

pytestmark = pytest.mark.skipif(bool(uprobes.refusal()), reason=uprobes.refusal() or "-")
PORT, GNUTLS = 8443, 8444
_REQUESTS = 20_011
_PATHS = ("/", "/gone", "/none", "/down", "/moved", "/page.txt", "/sink")
_ROUTES = ("/", "/{page}")
#: A server's port is not taken by a client of before.
_SERVERS = f"{PORT},{GNUTLS},5432"


#: An HTTPS server: ``python -c _SERVER FOLDER PORT``.
_SERVER = """
import http.server, ssl, sys
server = http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[2])), http.server.BaseHTTPRequestHandler)
server.RequestHandlerClass.do_GET = lambda self: self.send_error(404)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(sys.argv[1] + "/cert.pem", sys.argv[1] + "/key.pem")
server.socket = context.wrap_socket(server.socket, server_side=True)
server.serve_forever()
"""


#: One that takes connections and requests, and never answers.
_SILENT = """
import socket, ssl, sys
listener = socket.create_server(("127.0.0.1", int(sys.argv[2])))
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(sys.argv[1] + "/cert.pem", sys.argv[1] + "/key.pem")
kept = []
while True:
    kept.append(context.wrap_socket(listener.accept()[0], server_side=True))
    kept[-1].recv(99)
"""


@pytest.fixture(scope="module")
def place(place: Netns) -> Netns:
    place.sysctl("net.ipv4.ip_local_reserved_ports", _SERVERS)
    return place


@pytest.fixture(scope="module")
def watch(place: Netns) -> Iterator[Watch]:
    with asking(place, tls=1024, routes=_ROUTES) as made:
        yield made


@pytest.fixture
def probing(watch: Watch, place: Netns) -> Iterator[TlsWatch]:
    with looking(watch, place) as made:
        yield made
    assert not made._uprobes.files()


@contextlib.contextmanager
def looking(watch: Watch, place: Netns, wait: bool = True) -> Iterator[TlsWatch]:
    """What an agent does beside its pipeline; ``wait`` until the probes have gone with the last process."""
    failures: list[int] = []
    made = TlsWatch(watch.kernel, Scope(frozenset({place.inode})), lambda: failures.append(1), 0.2)
    made.start()
    try:
        yield made
        if wait:
            until(lambda: not made.state().files, 15)
    finally:
        made.stop()
    assert not failures


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A key, its certificate, and libraries of our own."""
    made = tmp_path_factory.mktemp("tls")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
         "-keyout", made / "key.pem", "-out", made / "cert.pem", "-subj", "/CN=localhost", "-days", "2"],
        check=True, capture_output=True,
    )  # fmt: skip
    (made / "lib").mkdir()
    for name in ("libssl.so.3", "libgnutls.so.30"):
        for found in list(Path("/usr/lib").glob(f"*-linux-gnu/{name}"))[:1]:
            shutil.copy(found, made / "lib" / name)
    return made


def own_libraries(folder: Path) -> list[str]:
    return ["env", f"LD_LIBRARY_PATH={folder}/lib"]


def uses(probing: TlsWatch, pid: int) -> bool:
    """Whether a process has a file with probes."""
    return any(pid in file.users for file in list(probing._files.values()))


@contextlib.contextmanager
def begun(place: Netns, probing: TlsWatch, *command: str) -> Iterator[subprocess.Popen[str]]:
    """A peer that begins with a line, which it is given once it is probed."""
    peer = subprocess.Popen(["nsenter", f"--net={place.path}", "--", *command], text=True,
                            stdin=subprocess.PIPE, stdout=subprocess.PIPE)  # fmt: skip
    try:
        until(lambda: uses(probing, peer.pid) or peer.poll() is not None)
        assert uses(probing, peer.pid)
        tell(peer, "begin")
        yield peer
    finally:
        peer.kill()
        peer.communicate()


def said(peer: subprocess.Popen[str]) -> str:
    """The next line of a peer."""
    assert peer.stdout
    return peer.stdout.readline()


def by_port(watch: Watch, place: Netns, counts: list[list[object]]) -> tuple[object, object]:
    """What both ends counted of these ports, and what the server counted."""
    own: dict[object, Counter[tuple[str, object, object]]] = {}
    for port, method, status, n in counts:
        own.setdefault(port, Counter())["http", method, status] = int(str(n))
    return {port: served(watch, place, int(str(port))) for port in own}, own


@contextlib.contextmanager
def serving(place: Netns, folder: Path, home: Path) -> Iterator[subprocess.Popen[str]]:
    """nginx with TLS."""
    needed("nginx", "h2load", "curl")
    (home / "html").mkdir()
    (home / "html/index.html").write_text("x" * 612)
    (home / "html/page.txt").write_text("compress me " * 500)
    (home / "html/large").write_bytes(b"\r\nHTTP/1.1 200 OK\r\n\r\n" * 100_000)
    cipher = f"ssl_certificate {folder}/cert.pem; ssl_certificate_key {folder}/key.pem;"
    (home / "nginx.conf").write_text(
        NGINX_CONF.format(home=home, port=PORT)
        .replace(f"listen {PORT};", f"listen {PORT} ssl http2; {cipher}")
        .replace("proxy_pass http:", "proxy_pass https:")
        .replace("$request_method $status", "$request_method $status $request_uri")
    )
    command = (*own_libraries(folder), "nginx", "-c", str(home / "nginx.conf"), "-e", str(home / "error.log"))
    with running(place, PORT, *command) as process:
        yield process


@pytest.fixture
def nginx(place: Netns, folder: Path, tmp_path: Path, probing: TlsWatch) -> Iterator[Path]:
    """Its log."""
    with serving(place, folder, tmp_path) as process:
        until(lambda: uses(probing, process.pid))
        yield tmp_path / "access.log"


def logged(log: Path, protocol: str) -> Counter[tuple[str, str, int]]:
    time.sleep(0.3)
    return Counter((protocol, line.split()[0], int(line.split()[1])) for line in log.read_text().splitlines())


@pytest.mark.parametrize(("protocol", "how"), [("http", ("--h1",)), ("http", ("--h1", "-m13")),
                                               ("http2", ("-m1",)), ("http2", ("-m13",))])  # fmt: skip
def test_nginx_at_full_load(
    watch: Watch, place: Netns, folder: Path, nginx: Path, protocol: str, how: tuple[str, ...]
) -> None:
    urls = (f"https://127.0.0.1:{PORT}{path}" for path in _PATHS)
    told = place.run(*own_libraries(folder), "h2load", *how, f"-n{_REQUESTS}", "-c13", *urls)
    asked = re.search(r"status codes: (\d+) 2xx, (\d+) 3xx, (\d+) 4xx, (\d+) 5xx", told)
    assert asked, told
    found = served(watch, place, PORT)
    assert found == logged(nginx, protocol)
    hundreds: Counter[int] = Counter()
    for (_, _, status), n in found.items():
        hundreds[status // 100] += n
    assert [hundreds[h] for h in (2, 3, 4, 5)] == [int(n) for n in asked.groups()]
    paths = Counter(line.split()[2] for line in nginx.read_text().splitlines())
    routes = Counter({1: paths["/"], 2: paths.total() - paths["/"]})
    for role in (SOURCE, DESTINATION):
        rows = watch.request_rows(place, role, PORT)
        by_route: Counter[int] = Counter()
        for row in rows:
            by_route[int(row["key"]["route"])] += int(row["untimed"]) + int(row["duration"].sum())
        assert +by_route == routes
    nothing_lost(watch, "reset_unmatched")


def test_curl(watch: Watch, place: Netns, folder: Path, nginx: Path) -> None:
    """Uploads, downloads, processes that live for one request; nginx is its own client, too."""
    url = f"https://127.0.0.1:{PORT}"
    for how in ([], ["-H", "Transfer-Encoding: chunked"], ["-H", "Expect: 100-continue"]):
        place.run(*own_libraries(folder), "curl", "-skf", "--http1.1", *how, "-T",
                  f"{nginx.parent}/html/large", f"{url}/up")  # fmt: skip
    place.run(*own_libraries(folder), "curl", "-skf", "--http1.1", "-o", "/dev/null", f"{url}/large")
    found = served(watch, place, PORT)
    assert found == logged(nginx, "http") == {("http", "PUT", 201): 6, ("http", "GET", 200): 1}
    nothing_lost(watch, "reset_unmatched")


def test_a_client_that_gives_up(watch: Watch, place: Netns, folder: Path, probing: TlsWatch) -> None:
    """Is a failure at its end as soon as it frees its session."""
    with running(place, PORT, *own_libraries(folder), sys.executable, "-c", _SILENT, str(folder),
                 str(PORT)) as server:  # fmt: skip
        until(lambda: uses(probing, server.pid))
        gone = subprocess.run(
            ["nsenter", f"--net={place.path}", *own_libraries(folder), "curl", "-sk", "--max-time", "0.5",
             f"https://127.0.0.1:{PORT}/"], check=False,
        )  # fmt: skip
        assert gone.returncode == 28
        assert watch.requests(place, SOURCE, PORT) == {("http", "GET", 0): 1}


@pytest.mark.parametrize("way", ["blocking", "waiting", "memory"])
def test_python(watch: Watch, place: Netns, folder: Path, probing: TlsWatch, way: str) -> None:
    """Requests of connections that one process has side by side stay with their own."""
    command = (*own_libraries(folder), f"PYTHONPATH={ROOT}", sys.executable, "-m", tls_talk.__name__)
    with begun(place, probing, *command, str(folder), way) as peer:
        counts = json.loads(said(peer))
        assert sum(n for *_, n in counts) == tls_talk.CONNECTIONS * tls_talk.REQUESTS
        found, own = by_port(watch, place, counts)
    assert found == own
    nothing_lost(watch, "reset_unmatched")


def tell(peer: subprocess.Popen[str], line: str) -> None:
    assert peer.stdin
    peer.stdin.write(f"{line}\n")
    peer.stdin.flush()


@pytest.mark.parametrize("stripped", ["", "-s -w"], ids=["", "stripped"])
@pytest.mark.parametrize("protocol", ["http1", "http2"])
def test_go(
    watch: Watch, place: Netns, tmp_path: Path, probing: TlsWatch, protocol: str, stripped: str
) -> None:
    needed("go")
    env = {**os.environ, "GOFLAGS": "-mod=mod", "GO111MODULE": "off", "GOCACHE": "/var/cache/weir/go-build"}
    source = str(PEERS / "http2_go/main.go")
    built = subprocess.run(["go", "build", f"-ldflags={stripped}", "-o", str(tmp_path / "peer"), source],
                           env=env, capture_output=True, text=True, check=False)  # fmt: skip
    if "undefined: http.Protocols" in built.stderr:
        pytest.skip("this go is older than 1.24: its net/http cannot be told which protocols to speak")
    assert not built.returncode, built.stderr
    with begun(place, probing, str(tmp_path / "peer"), protocol) as peer:
        port, own = http2_counts(said(peer))
    own = {(protocol.replace("http1", "http"), method, status): n for (_, method, status), n in own.items()}
    assert sum(own.values()) == 13 * 307
    assert served(watch, place, port) == own
    nothing_lost(watch, "reset_unmatched")


def test_node(watch: Watch, place: Netns, folder: Path, tmp_path: Path, probing: TlsWatch) -> None:
    """OpenSSL within the program, which writes into memory."""
    needed("node")
    shutil.copy(str(shutil.which("node")), tmp_path / "node")
    command = (*own_libraries(folder), str(tmp_path / "node"), str(PEERS / "http2_node.mjs"), str(folder))
    with begun(place, probing, *command) as peer:
        port, own = http2_counts(said(peer))
    assert sum(own.values()) == 7 * 307
    assert served(watch, place, port) == own
    nothing_lost(watch, "reset_unmatched")


def test_gnutls(watch: Watch, place: Netns, folder: Path, probing: TlsWatch) -> None:
    needed("gnutls-serv", "wget")
    serve = ("gnutls-serv", "--http", "-q", "-p", str(GNUTLS), "--x509keyfile", str(folder / "key.pem"),
             "--x509certfile", str(folder / "cert.pem"))  # fmt: skip
    with running(place, GNUTLS, *own_libraries(folder), *serve) as server:
        until(lambda: uses(probing, server.pid))
        for _ in range(7):
            place.run(*own_libraries(folder), "wget", "-q", "--no-check-certificate", "-O", "/dev/null",
                      f"https://127.0.0.1:{GNUTLS}/")  # fmt: skip
        assert served(watch, place, GNUTLS) == {("http", "GET", 200): 7}
    nothing_lost(watch, "reset_unmatched")


def test_a_handshake_is_no_request(watch: Watch, place: Netns, folder: Path, nginx: Path) -> None:
    for _ in range(3):
        place.run("sh", "-c", f"LD_LIBRARY_PATH={folder}/lib openssl s_client -connect 127.0.0.1:{PORT}"
                  " </dev/null >/dev/null 2>&1")  # fmt: skip
    assert served(watch, place, PORT) == {}
    assert not nginx.read_text()
