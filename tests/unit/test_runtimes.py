# SPDX-License-Identifier: Apache-2.0
"""Names of containers, from files and from Docker's socket."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.unit.synthetic import Clock, roots
from weir.identity.containers import Container
from weir.identity.runtimes import ContainerNames, Name

ID, OTHER, THIRD = "1" * 12 + "a" * 52, "2" * 12 + "b" * 52, "3" * 12 + "c" * 52
WEB = {"Name": "/shop-web-1", "Config": {"Labels": {"com.docker.compose.project": "shop"}}}


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_names_from_the_runtimes_files(tmp_path: Path) -> None:
    where = roots(tmp_path)
    write(where.docker / "containers" / ID / "config.v2.json", json.dumps(WEB))
    podman = where.podman / "storage/overlay-containers/containers.json"
    write(podman, json.dumps([{"id": OTHER, "names": ["db"]}]))
    write(where.nerdctl / "1935db59/names/default/cache", THIRD)
    names = ContainerNames(where, Clock())
    web, db, cache = Name("shop-web-1", "shop"), Name("db"), Name("cache")
    assert [names.name(Container(runtime, ID)) for runtime in ("docker", "")] == [web, web]
    assert [names.name(Container(runtime, OTHER)) for runtime in ("podman", "")] == [db, db]
    assert [names.name(Container(runtime, THIRD)) for runtime in ("containerd", "")] == [cache, cache]
    assert names.name(Container("containerd", "ab" * 32)) == Name("ab" * 6)


def test_a_name_that_comes_late_is_found(tmp_path: Path) -> None:
    clock, where = Clock(), roots(tmp_path)
    names = ContainerNames(where, clock, negative_ttl=60)
    config = where.docker / "containers" / ID / "config.v2.json"
    write(config, "{half")
    assert names.name(Container("docker", ID)) == Name(ID[:12])
    write(config, json.dumps({"Name": "/web"}))
    assert names.name(Container("docker", ID)) == Name(ID[:12])
    clock.now += 61
    assert names.name(Container("docker", ID)) == Name("web")


Serve = Callable[[bytes], list[bytes]]


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Serve]:
    """Answers each connection with the same bytes; what was asked is kept."""
    asked: list[bytes] = []
    listener = socket.socket(socket.AF_UNIX)

    def serve(answer: bytes) -> list[bytes]:
        listener.bind(str(roots(tmp_path).socket))
        listener.listen()

        def run() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    asked.append(connection.recv(4096))
                    connection.sendall(answer)

        threading.Thread(target=run, daemon=True).start()
        return asked

    yield serve
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()


def reply(status: str, body: bytes) -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


def test_docker_is_asked_by_its_socket(tmp_path: Path, daemon: Serve) -> None:
    asked = daemon(reply("200 OK", json.dumps(WEB).encode()))
    names = ContainerNames(roots(tmp_path), Clock())
    assert [names.name(Container("docker", ID)) for _ in range(3)] == [Name("shop-web-1", "shop")] * 3
    assert [line.split(b"\r\n")[0] for line in asked] == [f"GET /containers/{ID}/json HTTP/1.1".encode()]
    assert names.name(Container("podman", OTHER)) == Name(OTHER[:12])
    assert len(asked) == 1


@pytest.mark.parametrize(
    "answer",
    [b"", b"no HTTP", reply("200 OK", b"{half"), reply("404 Not Found", b"{}"), reply("200 OK", b"[]"),
     reply("200 OK", b'{"Name": 7}'), reply("200 OK", b'{"Name": "/", "Config": 1}')],
)  # fmt: skip
def test_what_the_daemon_says_wrongly_is_no_name(tmp_path: Path, daemon: Serve, answer: bytes) -> None:
    daemon(answer)
    names = ContainerNames(roots(tmp_path), Clock())
    assert names.name(Container("docker", ID)) == Name(ID[:12])


def test_a_daemon_that_fails_is_left_alone_for_a_while(tmp_path: Path, daemon: Serve) -> None:
    asked, clock = daemon(b""), Clock()
    names = ContainerNames(roots(tmp_path), clock, negative_ttl=60)
    for container in (ID, OTHER, THIRD):
        assert names.name(Container("docker", container)) == Name(container[:12])
    assert len(asked) == 1
    clock.now += 61
    names.name(Container("docker", ID))
    assert len(asked) == 2


def test_a_labels_type_that_cannot_be(tmp_path: Path) -> None:
    where = roots(tmp_path)
    config = {"Name": "/web", "Config": {"Labels": {"com.docker.compose.project": ["x"]}}}
    write(where.docker / "containers" / ID / "config.v2.json", json.dumps(config))
    assert ContainerNames(where, Clock()).name(Container("docker", ID)) == Name("web")
