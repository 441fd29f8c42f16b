# SPDX-License-Identifier: Apache-2.0
"""TCP payload, to the byte, both directions and both ends, whatever the way of sending."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator

import pytest

from tests.kernel.peers import ways
from tests.kernel.peers.netns import Wire, make_netns, make_wire
from tests.kernel.peers.tcp import tcp_pair
from tests.kernel.watch import VARIANTS, Watch, nothing_lost, watching
from weir.kernel.layout import DESTINATION, SOURCE

SIZE = 23 * 1000
#: Short connections, and how many a second they must be at least; emulated machines are slower.
CONNECTIONS, RATE = map(int, os.environ.get("WEIR_CHURN", "20000:1000").split(":"))
families = pytest.mark.parametrize("family", ["v4", "v6", "mapped"])


@pytest.fixture(scope="module")
def road() -> Iterator[Wire]:
    """One wire for the whole module: tests are told apart by their ports."""
    with make_wire() as made:
        yield made


@pytest.fixture(scope="module", params=VARIANTS)
def watch(request: pytest.FixtureRequest, road: Wire) -> Iterator[Watch]:
    with watching(road.client, road.server, variant=request.param) as made:
        yield made
        late = ("late_close", "untracked") if made.missed() else ()  # seen later, and counted all the same
        nothing_lost(made, "claim_lost", "reset_unmatched", *late)


@pytest.fixture(autouse=True)
def _mark(request: pytest.FixtureRequest) -> None:
    if "watch" in request.fixturenames:
        request.getfixturevalue("watch").mark()


def _exact(watch: Watch, road: Wire, port: int, up: int, down: int, connections: int = 1) -> None:
    watch.until(lambda: watch.tcp(road.server, DESTINATION, port).closed == connections)
    client, server = watch.ends(road.client, road.server, port)
    assert (client.payload, server.payload) == ((up, down), (down, up))
    assert (client.opened, client.closed, client.live) == (connections, connections, 0)
    assert (server.opened, server.closed, server.live) == (connections, connections, 0)


@families
@pytest.mark.parametrize("way", ways.SENDS)
def test_each_way_of_sending(watch: Watch, road: Wire, family: str, way: str) -> None:
    with tcp_pair(road.client, road.server, family) as pair:
        pair.run(way, SIZE, reply=1009)
        _exact(watch, road, pair.port, SIZE, 1009)


def test_ktls(watch: Watch, road: Wire) -> None:
    with tcp_pair(road.client, road.server) as pair:
        done = pair.run("tls", SIZE)
        _exact(watch, road, pair.port, SIZE + done.client.overhead, 0)


@pytest.mark.parametrize("read", ways.READS)
def test_each_way_of_reading(watch: Watch, road: Wire, read: str) -> None:
    with tcp_pair(road.client, road.server) as pair:
        pair.run("send", 1_000_003, read=read, chunk=65536)
        _exact(watch, road, pair.port, 1_000_003, 0)


def test_partial_writes_against_a_slow_reader(watch: Watch, road: Wire) -> None:
    with tcp_pair(road.client, road.server, rcvbuf=8192) as pair:
        pair.run("partial", 1_000_003, read="slow", sndbuf=8192)
        _exact(watch, road, pair.port, 1_000_003, 0)


@families
def test_half_close(watch: Watch, road: Wire, family: str) -> None:
    with tcp_pair(road.client, road.server, family) as pair:
        pair.half_close(SIZE, 1009)
        _exact(watch, road, pair.port, SIZE, 1009)


@pytest.mark.parametrize("first", ["client", "server"])
def test_reset_by_linger_zero(watch: Watch, road: Wire, first: str) -> None:
    with tcp_pair(road.client, road.server) as pair:
        pair.reset(SIZE, "client" if first == "client" else "server")
        _exact(watch, road, pair.port, SIZE, 0)
        client, server = watch.ends(road.client, road.server, pair.port)
        one, other = (client, server) if first == "client" else (server, client)
        assert (one.resets_sent, one.resets_received) == (1, 0)
        assert (other.resets_sent, other.resets_received) == (0, 1)


def test_unread_data_at_close(watch: Watch, road: Wire) -> None:
    """What reached the socket is received, whether the application read it or not."""
    with tcp_pair(road.client, road.server) as pair:
        pair.unread(SIZE, 1009)
        _exact(watch, road, pair.port, SIZE, 0)


@families
def test_a_long_connection_shows_at_each_drain(watch: Watch, road: Wire, family: str) -> None:
    with tcp_pair(road.client, road.server, family) as pair:
        link = pair.open()
        sent = 0
        for size in (1, 1009, 23_000, 100_003):
            link.move(size)
            sent += size
            link.now()
            client, server = watch.ends(road.client, road.server, pair.port)
            assert (client.payload, server.payload) == ((sent, 0), (0, sent))
            assert (client.live, server.live, client.closed) == (1, 1, 0)
        link.close()
        _exact(watch, road, pair.port, sent, 0)


def test_many_short_connections(watch: Watch, road: Wire) -> None:
    """The issue's 20,000, at more than 1,000 a second, while drains go on."""
    with tcp_pair(road.client, road.server) as pair:
        done = pair.churn(CONNECTIONS, request=101, reply=211)
        _exact(watch, road, pair.port, CONNECTIONS * 101, CONNECTIONS * 211, CONNECTIONS)
    assert done.count / done.seconds >= RATE


def test_both_ends_in_one_namespace() -> None:
    with make_netns() as alone, watching(alone) as watch, tcp_pair(alone, alone) as pair:
        pair.run("send", SIZE, reply=1009)
        watch.until(lambda: watch.tcp(alone, DESTINATION, pair.port).closed == 1)
        client, server = watch.ends(alone, alone, pair.port)
        assert (client.payload, server.payload) == ((SIZE, 1009), (1009, SIZE))


def test_a_process_that_ends_before_the_first_drain(watch: Watch, road: Wire) -> None:
    with tcp_pair(road.client, road.server) as pair:
        link = pair.open()
        link.move(SIZE)
        link.now()
        pair.client.kill()
        link.pull()
        link.close_end("server", drain=False)
        _exact(watch, road, pair.port, SIZE, 0)
        comm = watch.rows(road.client, SOURCE, pair.port)["key"]["comm"][0]
        assert comm.decode().startswith("python")


def test_a_namespace_that_ends_while_it_is_counted() -> None:
    with make_wire() as wire, watching(wire.client, wire.server) as watch:
        client, server = wire.client.inode, wire.server.inode
        with tcp_pair(wire.client, wire.server) as pair:
            link = pair.open()
            link.move(SIZE)
            wire.client.delete()
            wire.server.delete()
            link.now()
        watch.until(lambda: int(watch.drain().slots["closed"].sum()) == 2)
        slots = watch.drain().slots
        by_netns = {int(s["key"]["netns"]): (int(s["sent_bytes"]), int(s["received_bytes"])) for s in slots}
        assert by_netns == {client: (SIZE, 0), server: (0, SIZE)}


def test_reuse_of_socket_memory(watch: Watch, road: Wire) -> None:
    """Sockets that come and go at one address of kernel memory: nothing of one is counted for the next."""
    ports = []
    for _ in range(7):
        with tcp_pair(road.client, road.server) as pair:
            for size in (13, 1009, 7):
                pair.run("send", size)
            ports.append(pair.port)
    for port, times in Counter(ports).items():  # the kernel may give one out again
        _exact(watch, road, port, times * (13 + 1009 + 7), 0, times * 3)


def test_a_socket_that_connects_again() -> None:
    """connect to AF_UNSPEC (tcp_disconnect) puts the kernel's counters back to 0 on the same socket."""
    script = """
import ctypes, socket, struct
libc = ctypes.CDLL(None)
server = socket.create_server(("127.0.0.1", 0)); port = server.getsockname()[1]
s = socket.socket()
for size in (1009, 23, 4001):
    s.connect(("127.0.0.1", port)); peer, _ = server.accept(); s.sendall(b"x" * size)
    got = 0
    while got < size: got += len(peer.recv(65536))
    libc.connect(s.fileno(), struct.pack("H14x", 0), 16); peer.close()
print(port)
"""
    with make_netns() as alone, watching(alone) as watch:
        port = int(alone.run(sys.executable, "-c", script))
        watch.until(lambda: watch.tcp(alone, DESTINATION, port).closed == 3)
        client, server = watch.ends(alone, alone, port)
        assert (client.payload, server.payload) == ((5033, 0), (0, 5033))
        assert (client.opened, client.closed) == (3, 3)
    assert subprocess.run(["ip", "netns", "pids", alone.name], check=False, capture_output=True).returncode
