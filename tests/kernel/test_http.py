# SPDX-License-Identifier: Apache-2.0
"""HTTP/1.0 and 1.1, request by request, on real connections: what is counted is what was said."""

from __future__ import annotations

import random
import sys
import time
from collections import Counter

import numpy as np
import pytest

from tests.kernel.peers.dialogue import CLIENT, SERVER, Dialogues, Line
from tests.kernel.peers.http_text import answer, chunked, conversation, cut, get
from tests.kernel.peers.netns import Netns, make_netns
from tests.kernel.watch import Watch, asking, nothing_lost
from weir.kernel.layout import DESTINATION, SOURCE, duration_bounds

Counts = dict[tuple[str, str, int], int]


def counted(watch: Watch, place: Netns, port: int) -> Counts:
    """What both ends counted, which must be the same."""
    client, server = watch.requests(place, SOURCE, port), watch.requests(place, DESTINATION, port)
    assert client == server
    return client


def http(**counts: int) -> Counts:
    """``GET_200=3`` → the rows of that."""
    return {("http", what.split("_")[0], int(what.split("_")[1])): n for what, n in counts.items()}


@pytest.mark.parametrize("family", ["v4", "v6"])
def test_keep_alive(watch: Watch, place: Netns, talks: Dialogues, family: str) -> None:
    port = talks.listen(family)
    number = talks.connect(port)
    for n in range(101):
        talks.say(number, [(CLIENT, get(f"/{n}")), (SERVER, answer(200, b"x" * n))])
    for status in (204, 301, 304, 404, 500, 503):
        body = None if status in (204, 304) else b"y"
        talks.say(number, [(CLIENT, get()), (SERVER, answer(status, body))])
    talks.close(number)
    assert counted(watch, place, port) == http(
        GET_200=101, GET_204=1, GET_301=1, GET_304=1, GET_404=1, GET_500=1, GET_503=1
    )
    nothing_lost(watch)


@pytest.mark.parametrize(
    "method", ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "TRACE", "PATCH", "PROPFIND", "M-SEARCH"]
)
def test_methods(watch: Watch, place: Netns, talks: Dialogues, method: str) -> None:
    port = talks.listen()
    talks.once(
        port, [(CLIENT, get(method=method)), (SERVER, answer(200, None if method == "HEAD" else b"x"))]
    )
    name = method if method not in ("PROPFIND", "M-SEARCH") else "_OTHER"
    assert counted(watch, place, port) == {("http", name, 200): 1}


def test_pipelined(watch: Watch, place: Netns, talks: Dialogues) -> None:
    """Sixteen at once, of all kinds, answered in one go, then one by one."""
    port = talks.listen()
    kinds = [
        (get(), answer(200, b"a" * 5000)), (get(method="HEAD"), answer(200, None, "Content-Length: 77")),
        (get(method="POST", body=b"q" * 333), chunked(201, b"one", b"t" * 999, trailer="Checksum: 1\r\n")),
        (get(), answer(304, None, "Content-Length: 55")),
    ]  # fmt: skip
    asked, said = zip(*kinds * 4, strict=True)
    number = talks.connect(port)
    talks.say(number, [(CLIENT, b"".join(asked)), (SERVER, b"".join(said))])
    talks.say(number, [(CLIENT, b"".join(asked[:7])), *((SERVER, text) for text in said[:7])])
    talks.say(number, [*((CLIENT, text) for text in asked[:7]), (SERVER, b"".join(said[:7]))])
    talks.close(number)
    assert counted(watch, place, port) == http(GET_200=8, HEAD_200=8, POST_201=8, GET_304=6)
    nothing_lost(watch)


def test_interim_answers(watch: Watch, place: Netns, talks: Dialogues) -> None:
    port = talks.listen()
    head, _, body = get(method="PUT", body=b"z" * 1000).partition(b"\r\n\r\n")
    number = talks.connect(port)
    for _ in range(7):
        talks.say(number, [
            (CLIENT, head + b"\r\n\r\n"), (SERVER, b"HTTP/1.1 100 Continue\r\n\r\n"), (CLIENT, body),
            (SERVER, b"HTTP/1.1 102 Processing\r\n\r\n" + answer(200, b"ok")),
        ])  # fmt: skip
    talks.say(number, [(CLIENT, get()), (SERVER, b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"),
                       (SERVER, answer(200, b"ok"))])  # fmt: skip
    talks.close(number)
    assert counted(watch, place, port) == http(PUT_200=7, GET_200=1)
    nothing_lost(watch)


def test_split_at_every_byte(watch: Watch, place: Netns, talks: Dialogues) -> None:
    """A pair of pipelined requests and their answers, cut into two segments at each place."""
    port = talks.listen()
    asked = get("/first", "POST", b"abc", "X-Long: " + "l" * 90) + get("/second")
    said = chunked(200, b"hello") + answer(404, b"no")
    for at in range(1, len(asked)):
        talks.once(port, [(CLIENT, asked[:at]), (CLIENT, asked[at:]), (SERVER, said)])
    for at in range(1, len(said)):
        talks.once(port, [(CLIENT, asked), (SERVER, said[:at]), (SERVER, said[at:])])
    times = len(asked) + len(said) - 2
    assert counted(watch, place, port) == http(POST_200=times, GET_404=times)
    nothing_lost(watch)


def test_byte_by_byte(watch: Watch, place: Netns, talks: Dialogues) -> None:
    port = talks.listen()
    number = talks.connect(port)
    for method in ("GET", "POST"):
        asked, said = get(method=method, body=b"1234567"), chunked(200, b"a", b"bc")
        talks.say(number, [(CLIENT, asked[i : i + 1]) for i in range(len(asked))])
        talks.say(number, [(SERVER, said[i : i + 1]) for i in range(len(said))])
    talks.close(number)
    assert counted(watch, place, port) == http(GET_200=1, POST_200=1)
    nothing_lost(watch)


@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.parametrize("first", [CLIENT, SERVER])
def test_never_answered(watch: Watch, place: Netns, talks: Dialogues, first: str, reset: bool) -> None:
    port = talks.listen()
    number = talks.connect(port)
    talks.say(number, [(CLIENT, get()), (SERVER, answer(200, b"x")), (CLIENT, get(method="POST") * 3)])
    talks.close(number, (first, CLIENT if first == SERVER else SERVER), reset)
    watch.until(lambda: len(watch.requests(place, SOURCE, port)) > 1)
    assert counted(watch, place, port) == http(GET_200=1, POST_0=3)


def test_the_last_answer_comes_with_the_end(watch: Watch, place: Netns, talks: Dialogues) -> None:
    """HTTP/1.0: the body ends with the connection."""
    port = talks.listen()
    for _ in range(11):
        number = talks.connect(port)
        talks.say(number, [(CLIENT, b"GET / HTTP/1.0\r\n\r\n"), (SERVER, answer(200, None) + b"x" * 5000)])
        talks.close(number, (SERVER, CLIENT))
    assert counted(watch, place, port) == http(GET_200=11)


@pytest.mark.parametrize(
    ("asked", "said", "what"),
    [
        (get(method="CONNECT"), b"HTTP/1.1 200 OK\r\n\r\n", ("http", "CONNECT", 200)),
        (get("/", "GET", b"", "Upgrade: websocket", "Connection: Upgrade"),
         b"HTTP/1.1 101 Switching\r\nUpgrade: websocket\r\n\r\n", ("http", "GET", 101)),
    ],
)  # fmt: skip
def test_another_protocol_afterwards(
    watch: Watch, place: Netns, talks: Dialogues, asked: bytes, said: bytes, what: tuple[str, str, int]
) -> None:
    """From then on there are turns, whatever they look like."""
    port = talks.listen()
    number = talks.connect(port)
    talks.say(number, [(CLIENT, asked), (SERVER, said)])
    talks.say(number, [(CLIENT, get()), (SERVER, answer(200, b"x"))] * 5)
    talks.close(number)
    assert counted(watch, place, port) == {what: 1, ("tcp", "", 0): 5}


@pytest.mark.parametrize("lines", [
    [(CLIENT, b"\x10\x0b\x00\x04MQTT"), (SERVER, b"\x20\x02")],
    [(CLIENT, b"GET me something\r\n"), (SERVER, b"VALUE me\r\n")],
    [(CLIENT, b"HELO\r\n"), (SERVER, b"250\r\n")],
    [(CLIENT, b"x"), (SERVER, b"y")],
    [(CLIENT, b"GE"), (SERVER, b"HTTP/1.1 200 OK\r\n\r\n")],
    [(CLIENT, get()), (SERVER, b"-ERR what?\r\n")],
])  # fmt: skip
def test_what_is_not_http_counts_turns(
    watch: Watch, place: Netns, talks: Dialogues, lines: list[Line]
) -> None:
    port = talks.listen()
    number = talks.connect(port)
    talks.say(number, lines * 7)
    talks.close(number)
    assert counted(watch, place, port) == {("tcp", "", 0): 7}
    nothing_lost(watch)


def test_a_server_that_speaks_first(watch: Watch, place: Netns, talks: Dialogues) -> None:
    port = talks.listen()
    number = talks.connect(port)
    talks.say(number, [(SERVER, b"220 welcome\r\n")])
    talks.say(
        number,
        [(CLIENT, b"HELO a\r\n"), (CLIENT, b"more\r\n"), (SERVER, b"250-a\r\n"), (SERVER, b"250 b\r\n")] * 5,
    )
    talks.close(number)
    assert counted(watch, place, port) == {("tcp", "", 0): 5}


def test_bodies_that_look_like_heads(watch: Watch, place: Netns, talks: Dialogues) -> None:
    """Bodies full of requests and answers, in segments of their own, each way."""
    port = talks.listen()
    number = talks.connect(port)
    request, reply = get(), answer(200, b"x")
    for _ in range(5):
        talks.say(number, [
            (CLIENT, get(method="POST", body=request * 3)[: -3 * len(request)]), *[(CLIENT, request)] * 3,
            (SERVER, answer(200, reply * 3)[: -3 * len(reply)]), *[(SERVER, reply)] * 3,
        ])  # fmt: skip
    talks.close(number)
    assert counted(watch, place, port) == http(POST_200=5)


@pytest.mark.parametrize("seed", range(8))
def test_any_conversation(watch: Watch, place: Netns, talks: Dialogues, seed: int) -> None:
    """Random messages in random segments, in turns or pipelined: exact at both ends."""
    rng = random.Random(seed)
    port = talks.listen()
    total: Counter[tuple[str, str, int]] = Counter()
    for _ in range(60):
        asked, said, counts = conversation(rng)
        number = talks.connect(port)
        while asked:
            some = rng.randint(1, len(asked)) if rng.random() < 0.5 else 1
            lines = [(CLIENT, piece) for piece in cut(rng, b"".join(asked[:some]))]
            lines += [(SERVER, piece) for piece in cut(rng, b"".join(said[:some]))]
            talks.say(number, lines)
            del asked[:some], said[:some]
        talks.close(number)
        total += counts
    assert counted(watch, place, port) == dict(total), f"seed {seed}"
    nothing_lost(watch)


def test_older_connections(place: Netns, talks: Dialogues) -> None:
    """Those that were there before Weir are read from a turn on; a protocol that is none counts its turns."""
    port, other = talks.listen(), talks.listen()
    web, odd = talks.connect(port), talks.connect(other)
    for _ in range(3):
        talks.say(web, [(CLIENT, get()), (SERVER, answer(200, b"x" * 100))])
        talks.say(odd, [(CLIENT, b"x"), (SERVER, b"y")])
    talks.say(web, [(CLIENT, get(method="POST", body=b"q" * 900)[:-500])])
    with asking(place, nat="off") as young:
        talks.say(web, [(CLIENT, b"q" * 500), (SERVER, answer(201, b"x" * 100))])
        for _ in range(7):
            talks.say(web, [(CLIENT, get()), (SERVER, answer(200, b"x" * 100)), (SERVER, b"")])
            talks.say(odd, [(CLIENT, b"xx"), (SERVER, b"yy")])
        for number in (web, odd):
            talks.close(number)
        assert counted(young, place, port) == {("tcp", "", 0): 1, **http(GET_200=7)}
        assert counted(young, place, other) == {("tcp", "", 0): 7}
        nothing_lost(young)


def test_ports_that_are_left_out(place: Netns, talks: Dialogues) -> None:
    plain, opaque, skipped = (talks.listen() for _ in range(3))
    with asking(place, nat="off", opaque_ports=(opaque,), skip_ports=(skipped,)) as told:
        for port in (plain, opaque, skipped):
            talks.once(port, [(CLIENT, get()), (SERVER, answer(404, b"x"))] * 3)
        assert counted(told, place, plain) == http(GET_404=3)
        assert counted(told, place, opaque) == {("tcp", "", 0): 3}
        assert counted(told, place, skipped) == {}


def test_without_requests(place: Netns, talks: Dialogues) -> None:
    port = talks.listen()
    with asking(place, nat="off", requests=0) as told:
        talks.once(port, [(CLIENT, get()), (SERVER, answer(404, b"x"))])
        assert told.tcp(place, SOURCE, port).sent_bytes == len(get())
        assert not {p.name for p in told.kernel.programs()} & {"talk_segments", "http_messages"}


def test_more_results_than_rows(place: Netns, talks: Dialogues) -> None:
    """What finds no row is counted in row 0, and said."""
    port = talks.listen()
    with asking(place, nat="off", requests=64) as small:
        talks.once(
            port, [line for s in range(200, 250) for line in ((CLIENT, get()), (SERVER, answer(s, b"x")))]
        )
        drain = small.drain()
        rows = drain.requests
        assert int(rows["duration"].sum()) == 100
        assert (
            int(rows[drain.request_indexes == 0]["duration"].sum())
            == 100 - 63
            == drain.events["request_overflow"]
        )


def test_durations(watch: Watch, place: Netns, talks: Dialogues) -> None:
    """From the first byte of the request to the first of the answer, in buckets less than 10 % wide."""
    port = talks.listen()
    number = talks.connect(port)
    for _ in range(5):
        talks.say(number, [(CLIENT, get(method="POST", body=b"abc")[:-3])])
        time.sleep(0.1)
        talks.say(number, [(CLIENT, b"abc"), (SERVER, answer(200, b"1234")[:-4])])
        time.sleep(0.3)
        talks.say(number, [(SERVER, b"1234")])
    talks.close(number)
    for role in (SOURCE, DESTINATION):
        (row,) = watch.request_rows(place, role, port)
        assert 0.5 < row["sum_ns"] / 1e9 < 0.7
        places = np.flatnonzero(row["duration"])
        assert duration_bounds()[places[0] - 1] > 0.09
        assert duration_bounds()[places[-1]] < 0.2


def test_a_socket_that_connects_again(watch: Watch, place: Netns) -> None:
    """The second connection's state is not the first one's, which ended in the middle of an answer."""
    script = """
import ctypes, socket, struct
libc = ctypes.CDLL(None)
server = socket.create_server(("127.0.0.1", 0)); port = server.getsockname()[1]
s = socket.socket()
for status in (200, 404, 503):
    s.connect(("127.0.0.1", port)); peer, _ = server.accept()
    s.sendall(b"GET / HTTP/1.1\\r\\n\\r\\n"); peer.recv(100)
    peer.sendall(b"HTTP/1.1 %d Word\\r\\nContent-Length: 1000\\r\\n\\r\\nabc" % status); s.recv(1000)
    libc.connect(s.fileno(), struct.pack("H14x", 0), 16); peer.close()
print(port)
"""
    port = int(place.run(sys.executable, "-c", script))
    assert counted(watch, place, port) == http(GET_200=1, GET_404=1, GET_503=1)


LOSS = """add table inet weirt
add chain inet weirt in { type filter hook input priority 0; }
add rule inet weirt in tcp sport %d numgen random mod 100 < 2 drop
add rule inet weirt in tcp dport %d numgen random mod 100 < 2 drop"""


def test_a_client_that_gives_up(watch: Watch, place: Netns) -> None:
    """It closes its socket: nobody waits any more, though the server would answer yet. One that only says no
    more waits all the same.
    """
    script = """
import socket
server = socket.socket(); server.bind(("127.0.0.1", 0)); server.listen()
for how in ["close"] * 5 + ["shutdown"] * 3:
    client = socket.create_connection(server.getsockname()); there, _ = server.accept()
    client.send(b"GET / HTTP/1.1\\r\\n\\r\\n"); there.recv(99)
    client.close() if how == "close" else client.shutdown(socket.SHUT_WR)
    there.recv(99)
    there.send(b"HTTP/1.1 200 OK\\r\\nContent-Length: 0\\r\\n\\r\\n")
    if how == "shutdown": client.recv(99)
    there.close(); client.close()
print(server.getsockname()[1])
"""
    port = int(place.run(sys.executable, "-c", script))
    assert watch.requests(place, SOURCE, port) == http(GET_0=5, GET_200=3)
    assert watch.requests(place, DESTINATION, port) == http(GET_200=8)


def test_loss() -> None:
    """Segments that come again, late and out of order: right, or counted as not understood."""
    rng = random.Random(0)
    with make_netns() as lossy, Dialogues(lossy) as talks, asking(lossy) as watch:
        lossy.run("ip", "link", "set", "lo", "mtu", "1500")
        lossy.run(
            "ip", "route", "replace", "local", "127.0.0.0/8", "dev", "lo", "table", "local", "rto_min", "5ms"
        )
        port = talks.listen()
        number = talks.connect(port)
        talks.say(number, [(CLIENT, b"GET / HTTP/1.1\r\n\r\n"), (SERVER, answer(204, None))])
        lossy.run("nft", "-f", "-", stdin=LOSS % (port, port))
        total: Counter[tuple[str, str, int]] = Counter({("http", "GET", 204): 1})
        for _ in range(29):
            asked, said, counts = conversation(rng)
            for one, other in zip(asked, said, strict=True):
                lines = [(CLIENT, piece) for piece in cut(rng, one)] + [
                    (SERVER, piece) for piece in cut(rng, other)
                ]
                talks.say(number, lines)
            total += counts
        lossy.run("nft", "delete", "table", "inet", "weirt")
        talks.close(number)
        again = watch.tcp(lossy, None, port).retransmitted
        assert again > 10
        unread = watch.drain().events["request_unparsed"]
        for role in (SOURCE, DESTINATION):
            found = watch.requests(lossy, role, port)
            assert all(n <= total[what] for what, n in found.items()), (found, total)
            assert sum(total.values()) - sum(found.values()) <= unread
            assert sum(found.values()) > 0.95 * sum(total.values())
