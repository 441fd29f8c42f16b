# SPDX-License-Identifier: Apache-2.0
"""Who may read the agent's pages: TLS, certificates, passwords; and who only tries to be in the way."""

from __future__ import annotations

import base64
import http.client
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import bcrypt
import pytest

from tests.unit.synthetic import drain, identity, slot
from weir.aggregate import Aggregator, Snapshot
from weir.errors import ConfigError
from weir.export import server as server_module
from weir.export.app import App
from weir.export.guard import Guard
from weir.export.prometheus import Exposition
from weir.export.server import Server
from weir.health import Health

HASH = bcrypt.hashpw(b"a secret: 7", bcrypt.gensalt(4)).decode()
Serve = Callable[..., Server]


def issued(folder: Path, name: str, ca: str = "", san: str = "IP:127.0.0.1") -> None:
    """NAME.pem and NAME.key, signed by ``ca`` or by itself."""
    signed = ("-CA", str(folder / f"{ca}.pem"), "-CAkey", str(folder / f"{ca}.key")) if ca else ()
    subprocess.run(
        ["openssl", "req", "-x509", *signed, "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
         "-nodes", "-days", "2", "-subj", f"/CN={name}", "-addext", f"subjectAltName={san}", "-addext",
         f"basicConstraints=critical,CA:{'FALSE' if ca else 'TRUE'}",
         "-keyout", str(folder / f"{name}.key"), "-out", str(folder / f"{name}.pem")],
        check=True, capture_output=True,
    )  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ca, server, other, and clients one and two."""
    folder = tmp_path_factory.mktemp("certificates")
    issued(folder, "ca")
    for name, san in (("server", "IP:127.0.0.1"), ("other", "IP:127.0.0.1,DNS:other.test"),
                      ("one", "DNS:one.test"), ("two", "DNS:two.test")):  # fmt: skip
        issued(folder, name, "ca", san)
    return folder


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """A server with this web configuration."""
    running: list[Server] = []

    def start(text: str = "", health: Health[Snapshot] | None = None) -> Server:
        path = tmp_path / "web.yml"
        path.write_text(text)
        health = health or Health(5.0)
        pages = lambda: [{"n": "x" * 100_000}] * 200  # noqa: E731
        guard = Guard(health, str(path) if text else "")
        running.append(
            Server("127.0.0.1:0", health, App(health, Exposition(health, "1"), pages, list), guard)
        )
        running[-1].start()
        return running[-1]

    yield start
    for server in running:
        server.stop()


def get(
    server: Server, path: str, context: ssl.SSLContext | None = None, **headers: str
) -> tuple[int, bytes]:
    connection = (
        http.client.HTTPSConnection(*server.address, timeout=10, context=context)
        if context
        else http.client.HTTPConnection(*server.address, timeout=10)
    )
    try:
        connection.request("GET", path, headers=headers)
        reply = connection.getresponse()
        return reply.status, reply.read()
    finally:
        connection.close()


def trusting(made: Path, client: str = "") -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(made / "ca.pem"))
    if client:
        context.load_cert_chain(made / f"{client}.pem", made / f"{client}.key")
    return context


def basic(text: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(text.encode()).decode()}


PAGES = (
    "/metrics",
    "/",
    "/api/v1/edges",
    "/api/v1/connections",
    "/api/v1/requests",
    "/api/v1/graph",
    "/none",
    "/../etc/passwd",
)


def test_nothing_without_a_password(serve: Serve) -> None:
    server = serve(f"basic_auth_users:\n  prometheus: {HASH}\n")
    wrong: list[dict[str, str]] = [
        {}, basic("prometheus:a secret"), basic("prometheus:"), basic("prometheus:a\0b"), basic("other:a"),
        basic(":a secret: 7"), basic("prometheus"), {"Authorization": "Basic !"}, {"Authorization": "Digest"},
        {"Authorization": basic("prometheus:a secret: 7")["Authorization"].replace("Basic", "Digest")},
        basic("prometheus:" + "a" * 73), {"Authorization": "Basic " + base64.b64encode(b"\xff:").decode()},
        {"Authorization": "Basic " + "A" * 9000},
    ]  # fmt: skip
    for headers in wrong:
        for page in PAGES if not headers else PAGES[:1]:
            status, body = get(server, page, None, **headers)
            assert status == 401, (headers, page)
            assert body == b"a user and a password are needed\n"
    for _ in range(2):
        assert get(server, "/metrics", None, **basic("prometheus:a secret: 7"))[0] == 200
    assert get(server, "/none", None, **basic("prometheus:a secret: 7"))[0] == 404
    assert server._health.refused["authorization"] == len(wrong) - 1 + len(PAGES)


def test_health_says_no_more_than_that(serve: Serve) -> None:
    """A kubelet's probes have no password; why it is not well is for those who have one."""
    server = serve(f"basic_auth_users:\n  prometheus: {HASH}\n")
    assert get(server, "/healthz") == (200, b"ok\n")
    assert get(server, "/readyz") == (503, b"not well\n")
    assert get(serve(), "/readyz") == (503, b"no snapshot yet\n")


def test_tls_and_its_rotation(
    serve: Serve, made: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for kind in ("pem", "key"):
        (tmp_path / f"now.{kind}").write_bytes((made / f"server.{kind}").read_bytes())
    health: Health[Snapshot] = Health(5.0)
    server = serve("tls_server_config:\n  cert_file: now.pem\n  key_file: now.key\n", health)
    assert get(server, "/healthz", trusting(made)) == (200, b"ok\n")
    with pytest.raises((OSError, http.client.HTTPException)):
        get(server, "/healthz")
    with pytest.raises(ssl.SSLError):
        get(server, "/healthz", ssl.create_default_context())

    def names() -> set[str]:
        with trusting(made).wrap_socket(
            socket.create_connection(server.address), server_hostname="127.0.0.1"
        ) as end:
            told: Any = end.getpeercert()
            return {value for _, value in told["subjectAltName"]}

    assert names() == {"127.0.0.1"}
    for kind in ("key", "pem"):  # one after the other, as it comes
        (tmp_path / f"now.{kind}").write_bytes((made / f"other.{kind}").read_bytes())
        names()
    end = time.monotonic() + 10
    while "other.test" not in names() and time.monotonic() < end:
        time.sleep(0.1)
    assert "other.test" in names()
    (tmp_path / "now.pem").write_text("nothing")
    while not health.errors.get("web_config") and time.monotonic() < end:
        names()
        time.sleep(0.1)
    assert "other.test" in names()
    assert "stays as it was" in caplog.text


def test_tls_versions(serve: Serve, made: Path) -> None:
    server = serve(f"tls_server_config: {{cert_file: {made}/server.pem, key_file: {made}/server.key,"
                   " min_version: TLS13}\n")  # fmt: skip
    old = trusting(made)
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises(ssl.SSLError):
        get(server, "/healthz", old)
    assert get(server, "/healthz", trusting(made))[0] == 200


def test_client_certificates(serve: Serve, made: Path) -> None:
    """None, a wrong one, one of another name, a right one."""
    server = serve(
        f"tls_server_config:\n  cert_file: {made}/server.pem\n  key_file: {made}/server.key\n"
        f"  client_ca_file: {made}/ca.pem\n  client_auth_type: RequireAndVerifyClientCert\n"
        "  client_allowed_sans: [one.test]\n"
    )
    issued(made, "stranger", san="DNS:one.test")
    for client in ("", "stranger"):
        with pytest.raises((OSError, http.client.HTTPException)):
            get(server, "/metrics", trusting(made, client))
    assert get(server, "/metrics", trusting(made, "two")) == (403, b"this certificate is not allowed here\n")
    assert get(server, "/metrics", trusting(made, "one"))[0] == 200
    assert server._health.refused["certificate"] == 1


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[", "line 1: no YAML"),
        ("- a", "the file is to be a mapping"),
        ("a: 2026-13-45", "no YAML"),
        ("[" * 5000, "no YAML"),
        ("FILES, min_version: TLS13, max_version: TLS12}", "min_version is above max_version"),
        ("basic_auth_user: {}", "basic_auth_user is not known to Weir; it knows tls_server_config, basic"),
        ("basic_auth_users: [a]", "basic_auth_users is to be a mapping"),
        ("basic_auth_users: {a: secret}", "'a' is to be followed by a bcrypt hash; `htpasswd -nBC 10 USER`"),
        ("tls_server_config: {cert_file: x}", "tls_server_config needs cert_file and key_file"),
        ("tls_server_config: {cert_file: x, key_file: y}", "y: No such file"),
        ("tls_server_config: {cert_file: CERT, key_file: OTHER}", "key values mismatch"),
        ("FILES, min_version: SSL3}", "none of TLS12, TLS13"),
        ("FILES, cipher_suites: []}", "cipher_suites is not known"),
        ("FILES, client_auth_type: Maybe}", "none of NoClientCert"),
        ("FILES, client_ca_file: CERT}", "needs client_auth_type"),
        (
            "FILES, client_auth_type: VerifyClientCertIfGiven}",
            "client_auth_type needs client_ca_file",
        ),
        (
            "FILES, client_ca_file: KEY, client_auth_type: RequireAndVerifyClientCert}",
            "client_ca_file",
        ),
    ],
)  # fmt: skip
def test_files_that_cannot_be(made: Path, tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "web.yml"
    text = text.replace("FILES", "tls_server_config: {cert_file: CERT, key_file: KEY")
    for word, name in (("CERT", "server.pem"), ("KEY", "server.key"), ("OTHER", "other.key")):
        text = text.replace(word, str(made / name))
    path.write_text(text)
    with pytest.raises(ConfigError) as error:
        Guard(Health(5.0), str(path))
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"--web-config .*none.yml: No such file"):
        Guard(Health(5.0), str(tmp_path / "none.yml"))


def test_slow_ones_keep_nobody_waiting(serve: Serve, tmp_path: Path) -> None:
    """Two hundred connections that say a byte now and then, and some that take nothing of a large page."""
    health: Health[Snapshot] = Health(5.0)
    health.publish(Aggregator(identity(tmp_path)).update(drain({1: slot(sent_bytes=7)})))
    server = serve("", health)
    slow = [socket.create_connection(server.address) for _ in range(200)]
    deaf = [socket.create_connection(server.address) for _ in range(20)]
    try:
        for end in slow:
            end.send(b"GET /metrics HTTP/1.1\r\nHost: a\r\nX: ")
        for end in deaf:
            end.send(b"GET /api/v1/edges HTTP/1.1\r\nHost: a\r\n\r\n")
        time.sleep(0.5)
        for end in slow:
            end.send(b"x")
        began = time.monotonic()
        assert [get(server, "/metrics")[0] for _ in range(5)] == [200] * 5
        assert time.monotonic() - began < 2
    finally:
        for end in (*slow, *deaf):
            end.close()


def test_who_says_nothing_is_let_go(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "_TIMEOUT", 0.3)
    server = serve()
    for said in (
        b"",
        b"GET /metrics HT",
        b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 9\r\n\r\n",
    ):
        with socket.create_connection(server.address) as end:
            end.settimeout(5)
            end.sendall(said)
            while end.recv(65536):
                pass


def test_more_connections_than_are_taken(serve: Serve) -> None:
    server = serve()
    ends = [socket.create_connection(server.address) for _ in range(300)]
    until(lambda: server._health.refused.get("connections") == 300 - 256)
    assert server._health.refused == {"connections": 300 - 256}
    for end in ends:
        end.close()

    def serves() -> bool:
        try:
            return get(server, "/metrics")[0] == 200
        except OSError:
            return False

    until(serves)
    assert serves()


def until(holds: Callable[[], bool], seconds: float = 10) -> None:
    """Wait for it; the assertion that follows tells."""
    end = time.monotonic() + seconds
    while not holds() and time.monotonic() < end:
        time.sleep(0.05)


@pytest.mark.parametrize(
    "said",
    [
        b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 100_000 + b"\r\n\r\n",
        b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"".join(b"X-%d: y\r\n" % n for n in range(9000)) + b"\r\n",
        b"POST /metrics HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nX",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 100 + b"\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET http://other/metrics HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    ],
)  # fmt: skip
def test_what_is_no_request(serve: Serve, said: bytes) -> None:
    """It is refused, in short, and the next one is served."""
    server = serve()
    with socket.create_connection(server.address) as end:
        end.settimeout(5)
        answer = b""
        try:
            end.sendall(said)
            end.shutdown(socket.SHUT_WR)
            while piece := end.recv(65536):
                answer += piece
        except OSError:
            pass
    assert b" 200 " not in answer.partition(b"\r\n")[0]
    assert len(answer) < 1000
    assert get(server, "/metrics")[0] == 200


@pytest.mark.parametrize(
    "path", ["/../../etc/passwd", "/..%2f..%2fetc/passwd", "/metrics/../x", "/%00", "//", "/<script>"]
)
def test_paths_lead_nowhere(serve: Serve, path: str) -> None:
    server = serve()
    with socket.create_connection(server.address) as end:
        end.sendall(b"GET " + path.encode() + b" HTTP/1.0\r\n\r\n")
        answer = b""
        while piece := end.recv(65536):
            answer += piece
    assert answer.startswith(b"HTTP/1.1 404 ")
    assert b"application/json" in answer


def test_a_hundred_scrapes_at_once(serve: Serve) -> None:
    """All are served, or told that there are too many."""
    server = serve()
    answers: list[int] = []
    threads = [
        threading.Thread(target=lambda: answers.append(get(server, "/metrics")[0])) for _ in range(100)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == 100
    assert set(answers) <= {200, 503}
    assert get(server, "/metrics")[0] == 200
