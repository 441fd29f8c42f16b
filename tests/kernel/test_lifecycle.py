# SPDX-License-Identifier: Apache-2.0
"""Opened, accepted, failed, timed; what was there before; scoping; the end of everything."""

from __future__ import annotations

import socket
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.kernel.peers.netns import Wire, make_netns, make_wire
from tests.kernel.peers.process import Peer, address
from tests.kernel.peers.tcp import attempt, tcp_pair
from tests.kernel.peers.udp import udp_pair
from tests.kernel.watch import VARIANTS, Counted, Watch, nothing_lost, watching
from weir.kernel.layout import DESTINATION, FAILURES, SOURCE

families = pytest.mark.parametrize("family", ["v4", "v6", "mapped"])
variants = pytest.mark.parametrize("variant", VARIANTS)


@pytest.fixture(scope="module")
def road() -> Iterator[Wire]:
    with make_wire() as made:
        yield made


@pytest.fixture(scope="module", params=VARIANTS)
def watch(request: pytest.FixtureRequest, road: Wire) -> Iterator[Watch]:
    with watching(road.client, road.server, variant=request.param) as made:
        yield made


@pytest.fixture(autouse=True)
def _mark(request: pytest.FixtureRequest) -> None:
    if "watch" in request.fixturenames:
        request.getfixturevalue("watch").mark()


def _failed(counted: Counted) -> dict[str, int]:
    return {reason: n for reason, n in zip(FAILURES, counted.failed, strict=True) if n}


@families
def test_refused(watch: Watch, road: Wire, family: str) -> None:
    port = {"v4": 7001, "v6": 7002, "mapped": 7003}[family]
    with Peer(road.client) as peer:
        for _ in range(7):
            attempt(peer, family, address(road.server, family), port)
    counted = watch.tcp(road.client, SOURCE, port)
    assert _failed(counted) == {"refused": 7}
    assert (counted.opened, counted.live, counted.closed) == (0, 0, 0)


@families
def test_timeout(watch: Watch, road: Wire, family: str) -> None:
    port = {"v4": 7011, "v6": 7012, "mapped": 7013}[family]
    road.server.refuse(port)
    try:
        with Peer(road.client) as peer:
            assert attempt(peer, family, address(road.server, family), port).outcome == "ETIMEDOUT"
    finally:
        road.server.accept_all()
    counted = watch.tcp(road.client, SOURCE, port)
    assert _failed(counted) == {"timeout": 1}
    if not watch.drain().events[
        "late_close"
    ]:  # else the socket forgot it before anybody looked (tcp_disconnect)
        assert counted.retransmitted >= 1


def test_unreachable(watch: Watch, road: Wire) -> None:
    """Nobody answers ARP for the address: EHOSTUNREACH after some seconds."""
    with Peer(road.client) as peer:
        assert attempt(peer, "v4", Wire.silent["v4"], 7021, syn_retries=3).outcome == "EHOSTUNREACH"
    assert _failed(watch.tcp(road.client, SOURCE, 7021)) == {"unreachable": 1}


def test_the_application_gives_up(watch: Watch, road: Wire) -> None:
    road.server.refuse(7031)
    try:
        with Peer(road.client) as peer:
            assert attempt(peer, "v4", road.server.v4, 7031, give_up=0.2).outcome == "GAVE_UP"
    finally:
        road.server.accept_all()
    assert _failed(watch.tcp(road.client, SOURCE, 7031)) == {"aborted": 1}


def test_rejected_by_the_firewall(watch: Watch, road: Wire) -> None:
    road.server.refuse(7041, "reject with tcp reset")
    try:
        with Peer(road.client) as peer:
            assert attempt(peer, "v4", road.server.v4, 7041).outcome == "ECONNREFUSED"
    finally:
        road.server.accept_all()
    assert _failed(watch.tcp(road.client, SOURCE, 7041)) == {"refused": 1}


def test_no_local_port_is_left(watch: Watch, road: Wire) -> None:
    road.client.sysctl("net.ipv4.ip_local_port_range", "20000 20001")
    try:
        with tcp_pair(road.client, road.server) as pair:
            links = [pair.open(), pair.open()]
            outcome = attempt(pair.client, "v4", road.server.v4, pair.port).outcome
            counted = watch.tcp(road.client, SOURCE, pair.port)
            for link in links:
                link.close()
    finally:
        road.client.sysctl("net.ipv4.ip_local_port_range", "1024 65535")
    assert outcome == "EADDRNOTAVAIL"
    assert _failed(counted) == {"local": 1}


def test_connect_time_and_rtt(watch: Watch, road: Wire) -> None:
    with tcp_pair(road.client, road.server) as pair:
        link = pair.open()
        link.move(1009)
        link.now()
        watch.drain()
        client, server = watch.ends(road.client, road.server, pair.port)
        assert (client.connects, server.connects) == (1, 0)
        assert 0 < client.connect_sum_us < 1_000_000
        assert client.rtt_samples >= 1
        before = client.rtt_samples
        link.move(1009)
        link.now()
        assert watch.tcp(road.client, SOURCE, pair.port).rtt_samples > before
        link.close()


_STATE = ("tcp_state", "tcp_state_again")


@pytest.mark.parametrize("variant", ["storage", "tracepoint"])
@pytest.mark.parametrize("copy", _STATE)
def test_each_copy_sees_everything(road: Wire, variant: str, copy: str) -> None:
    """The kernel keeps events from a program that is running; the other copy of it is enough."""
    with watching(road.client, road.server, variant=variant) as watch:
        watch.detach(copy)
        with Peer(road.client) as peer, tcp_pair(road.client, road.server) as pair:
            attempt(peer, "v4", road.server.v4, 7051)
            for _ in range(7):
                pair.run("send", 1009, reply=23)
            watch.until(lambda: watch.tcp(road.server, DESTINATION, pair.port).closed == 7)
            client, server = watch.ends(road.client, road.server, pair.port)
            (row,) = watch.rows(road.server, DESTINATION, pair.port)
        assert (client.opened, client.closed, client.connects, client.live) == (7, 7, 7, 0)
        assert (server.opened, server.closed, server.live) == (7, 7, 0)
        assert (client.payload, server.payload) == ((7063, 161), (161, 7063))
        assert int(row["tgid"]) == pair.server.pid
        assert _failed(watch.tcp(road.client, SOURCE, 7051)) == {"refused": 1}
        nothing_lost(watch)


@variants
def test_a_close_that_nobody_saw(road: Wire, variant: str) -> None:
    """It is counted where the socket is destroyed, and said."""
    with (
        watching(road.client, road.server, variant=variant) as watch,
        tcp_pair(road.client, road.server) as pair,
    ):
        link = pair.open()
        link.move(1009)
        link.now()
        watch.detach(*_STATE)
        link.close()
        watch.until(lambda: watch.drain().events["late_close"] == 2)
        client, server = watch.ends(road.client, road.server, pair.port)
        assert (client.payload, client.closed, client.live) == ((1009, 0), 1, 0)
        assert (server.payload, server.closed, server.live) == ((0, 1009), 1, 0)
        nothing_lost(watch, "late_close")


@variants
@pytest.mark.parametrize("reason", ["refused", "aborted", "timeout"])
def test_a_failure_that_nobody_saw(road: Wire, variant: str, reason: str) -> None:
    """The application has taken the error when the socket goes: the reason is what was seen on the way.

    Where connect(2) waits for it (a time-out), the socket has forgotten whom it dialled, too.
    """
    with watching(road.client, road.server, variant=variant) as watch, Peer(road.client) as peer:
        road.server.refuse(7061)
        try:
            patience = {"refused": 30.0, "aborted": 0.5, "timeout": 0}[reason]
            peer.post(
                "attempt", family=socket.AF_INET, address=road.server.v4, port=7061, give_up=patience,
                syn_retries=int(reason == "timeout"), user_timeout_ms=0,
            )  # fmt: skip
            watch.until(lambda: watch.drain().maps[1].used == 1)
            watch.detach(*_STATE)
            if reason != "refused":
                peer.answer()
        finally:
            road.server.accept_all()  # nobody listens: a SYN that is sent again meets a RST
        if reason == "refused":
            peer.answer()
        watch.until(lambda: watch.drain().events["late_close"] == 1)
        assert _failed(watch.tcp(road.client, SOURCE, 7061)) == {reason: 1}
        assert watch.drain().maps[1].used == 0
        nothing_lost(watch, "late_close", "reset_unmatched")


@variants
@families
def test_connections_older_than_weir(family: str, variant: str) -> None:
    """Counted from now on, with their owner; the listening end is the destination."""
    with make_wire() as wire, tcp_pair(wire.client, wire.server, family) as pair:
        link = pair.open()
        link.move(100_003)
        with watching(wire.client, wire.server, variant=variant) as watch:
            client, server = watch.ends(wire.client, wire.server, pair.port)
            assert (client.payload, client.live, client.opened) == ((0, 0), 1, 0)
            assert (server.payload, server.live, server.opened) == ((0, 0), 1, 0)
            link.move(1009)
            link.move(503, sender="server")
            link.now()
            client, server = watch.ends(wire.client, wire.server, pair.port)
            assert (client.payload, server.payload) == ((1009, 503), (503, 1009))
            (row,) = watch.rows(wire.client, SOURCE, pair.port)
            assert int(row["tgid"]) == pair.client.pid
            pair.run("send", 23)
            link.close()
            watch.until(lambda: watch.tcp(wire.server, DESTINATION, pair.port).closed == 2)
            client, server = watch.ends(wire.client, wire.server, pair.port)
            assert (client.payload, server.payload) == ((1032, 503), (503, 1032))
            assert (server.live, server.opened, server.closed) == (0, 1, 2)


def test_udp_sockets_older_than_weir() -> None:
    with make_wire() as wire, udp_pair(wire.client, wire.server) as pair:
        pair.move("send", 7, 101)
        with watching(wire.client, wire.server) as watch:
            pair.move("send", 13, 211)
            port = pair.ports[0]
            client, server = watch.udp(wire.client, SOURCE, port), watch.udp(wire.server, DESTINATION, port)
            assert (client.payload, server.payload) == ((13 * 211, 0), (0, 13 * 211))


@variants
def test_scope_by_namespace(variant: str) -> None:
    with make_wire() as wire, watching(wire.client, variant=variant) as watch:
        with tcp_pair(wire.client, wire.server) as pair:
            pair.run("send", 1009)
        with udp_pair(wire.client, wire.server) as udp:
            udp.run("send", 7, 101)
        assert {int(n) for n in watch.drain().slots["key"]["netns"]} == {wire.client.inode}


@variants
def test_scope_by_port(variant: str) -> None:
    with (
        make_wire() as wire,
        tcp_pair(wire.client, wire.server) as pair,
        tcp_pair(wire.client, wire.server) as other,
        watching(wire.client, wire.server, variant=variant, ports=(pair.port,)) as watch,
    ):
        pair.run("send", 1009)
        other.run("send", 23)
        assert watch.tcp(None, SOURCE).payload == (1009, 0)
        assert {int(p) for p in watch.drain().slots["key"]["port"]} == {pair.port}


@variants
def test_scope_by_cgroup(cgroup: Callable[..., Path], variant: str) -> None:
    """Sockets of the cgroup and of those below it, nobody else's."""
    folder = cgroup("inner")
    outer = folder.parent
    with make_wire() as wire:
        scope = {"cgroups": ((outer.stat().st_ino, str(outer)),), "netns": ()}
        with watching(variant=variant, **scope) as watch:
            with tcp_pair(wire.client, wire.server, client_cgroup=folder) as pair:
                pair.run("send", 1009)
            with udp_pair(wire.client, wire.server, client_cgroup=outer) as udp:
                udp.run("send", 7, 101)
            slots = watch.drain().slots
            assert watch.tcp(None, SOURCE).payload == (1009, 0)
            assert watch.udp(None, SOURCE).payload == (707, 0)
            assert {int(c) for c in slots["key"]["cgroup"]} == {folder.stat().st_ino, outer.stat().st_ino}


def test_slots_run_out() -> None:
    """Bytes of edges that find no slot are in slot 0, and that is said."""
    with make_wire() as wire, watching(wire.client, wire.server, slots=64) as watch:
        for _ in range(41):
            with udp_pair(wire.client, wire.server) as pair:
                pair.run("send", 1, 1009)
        drain = watch.drain()
        assert int(drain.slots["sent_bytes"].sum()) == 41 * 1009
        assert drain.indexes[0] == 0
        assert int(drain.slots["sent_bytes"][0]) > 0
        assert drain.events["slot_overflow"] > 0


def test_connection_table_is_bounded() -> None:
    """What the table cannot hold is counted when it closes: nothing is lost but the time."""
    with (
        make_wire() as wire,
        watching(wire.client, wire.server, connections=64) as watch,
        tcp_pair(wire.client, wire.server) as pair,
    ):
        links = [pair.open() for _ in range(53)]
        for link in links:
            link.move(23)
        assert watch.drain().events["connection_limit"] > 0
        for link in links:
            link.close()
        watch.until(lambda: watch.tcp(wire.server, DESTINATION, pair.port).closed == 53)
        client, server = watch.ends(wire.client, wire.server, pair.port)
        assert (client.payload, server.payload) == ((53 * 23, 0), (0, 53 * 23))
        assert watch.drain().events["untracked"] > 0


def test_nothing_is_left() -> None:
    with make_wire() as wire, watching(wire.client) as watch:
        home = watch.instance.home
        assert home.exists()
    assert not home.exists()
    assert not watch.instance.run.exists()


def test_programs_are_kept(road: Wire, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second start compiles nothing and has the same programs; what others could write is not used."""
    monkeypatch.setenv("WEIR_CACHE_DIR", str(tmp_path / "kept"))
    starts: list[tuple[bool, dict[str, int]]] = []
    for mode in (0o700, 0o700, 0o777):
        if starts:
            (tmp_path / "kept").chmod(mode)
        load = watching(road.client, road.server, nat="off")
        with load as watch, tcp_pair(road.client, road.server) as pair:
            code = {name: len(text) for name, (_, text) in watch.kernel.program_code().items()}
            starts.append((watch.kernel.facts["kept"], code))
            link = pair.open()
            link.move(1009)
            link.close()
            ends = watch.ends(road.client, road.server, pair.port)
            assert [end.payload for end in ends] == [(1009, 0), (0, 1009)]
    assert [kept for kept, _ in starts] == [False, True, False]
    assert starts[0][1] == starts[1][1] == starts[2][1]


def test_start_to_first_byte(road: Wire) -> None:
    """Not a benchmark: a load that takes very long would be a defect."""
    started = time.monotonic()
    with watching(road.client):
        assert time.monotonic() - started < 30


@variants
def test_a_listener_that_leaves_its_group(variant: str) -> None:
    """One of two sockets that share a port (SO_REUSEPORT) closes, as at a reload: the owner stays known."""
    script = """
import socket
def listen(port):
    s = socket.socket(); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    s.bind(("127.0.0.1", port)); s.listen(); return s
a = listen(0); port = a.getsockname()[1]; b = listen(port); b.close()
c = socket.create_connection(("127.0.0.1", port)); d, _ = a.accept(); c.sendall(b"x" * 1009)
got = 0
while got < 1009: got += len(d.recv(4096))
c.close(); d.close(); print(port)
"""
    with make_netns() as alone, watching(alone, variant=variant) as watch:
        port = int(alone.run(sys.executable, "-c", script))
        watch.until(lambda: watch.tcp(alone, DESTINATION, port).closed == 1)
        (row,) = watch.rows(alone, DESTINATION, port)
        assert int(row["received_bytes"]) == 1009
        assert row["key"]["comm"].decode().startswith("python")
        assert int(row["tgid"]) > 0
