# SPDX-License-Identifier: Apache-2.0
"""``python -m tests.accuracy JSON``: traffic of known size, and what Weir and its peers say that it was.

As root, on a kernel with kprobes (scripts/accuracy runs it in QEMU); writes what was found to the file JSON.
"""

from __future__ import annotations

import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

import pytest

from tests.accuracy.peers import PEERS, Tool
from tests.kernel.peers import datagrams, native, ways
from tests.kernel.peers.dialogue import CLIENT, SERVER, Dialogues
from tests.kernel.peers.http_text import answer, get
from tests.kernel.peers.netns import Wire, make_wire
from tests.kernel.peers.tcp import TcpPair, tcp_pair
from tests.kernel.peers.udp import udp_pair
from tests.kernel.watch import Watch, asking
from weir.kernel.layout import SOURCE

SIZE, REPLY, SHORT = 1_000_003, 50_021, 1009
#: What fits into a socket's buffer.
_FITS = 23_003


@dataclass
class Row:
    """One way of sending; bytes (to the server, back) as the applications' system calls gave them."""

    way: str
    up: int
    down: int
    port: int
    #: tool -> what it says (up, down); nothing: it says nothing of these connections
    said: dict[str, tuple[int, int]] = field(default_factory=dict)


def _run(way: str, family: str) -> Callable[[Wire], Row]:
    def run(road: Wire) -> Row:
        with tcp_pair(road.client, road.server, family) as pair:
            done = pair.run(way, SIZE, reply=0 if way == "tls" else REPLY)
            up, down = done.client.sent + done.client.overhead, done.server.sent + done.server.overhead
            return Row(f"{way}, {family}", up, down, pair.port)

    return run


def _with(name: str, use: Callable[[TcpPair], tuple[int, int]], **more: int) -> Callable[[Wire], Row]:
    def run(road: Wire) -> Row:
        with tcp_pair(road.client, road.server, **more) as pair:  # type: ignore[arg-type]
            up, down = use(pair)
            return Row(name, up, down, pair.port)

    return run


def _slow(pair: TcpPair) -> tuple[int, int]:
    pair.run("partial", SIZE, read="slow", sndbuf=8192)
    return SIZE, 0


def _half(pair: TcpPair) -> tuple[int, int]:
    done = pair.half_close(SIZE, REPLY)
    return done.client.sent, done.server.sent


def _reset(pair: TcpPair) -> tuple[int, int]:
    return pair.reset(SIZE).client.sent, 0


def _unread(pair: TcpPair) -> tuple[int, int]:
    pair.unread(_FITS, SHORT)
    return _FITS, 0


def _churn(pair: TcpPair) -> tuple[int, int]:
    done = pair.churn(SHORT, request=101, reply=211)
    return done.client_sent, done.server_sent


#: Connections that are still open when the figures are read.
_open: list[tuple[TcpPair, object]] = []


def _stays(pair: TcpPair) -> tuple[int, int]:
    link = pair.open()
    link.move(SIZE)
    _open.append((pair, link))
    return SIZE, 0


WAYS: list[Callable[[Wire], Row]] = [
    *(_run(way, "v4") for way in (*ways.SENDS, "tls")),
    *(_run("send", family) for family in ("v6", "mapped")),
    _with("into small buffers, to a slow reader", _slow, rcvbuf=8192),
    _with("half-closed, then answered", _half),
    _with("ended by RST", _reset),
    _with("never read by the application", _unread),
    _with(f"{SHORT} short connections", _churn),
]


@contextmanager
def _staying(road: Wire) -> Iterator[Row]:
    with tcp_pair(road.client, road.server) as pair:
        up, down = _stays(pair)
        yield Row("a connection that is still open", up, down, pair.port)


def measure(road: Wire, watch: Watch) -> tuple[list[Row], dict[str, str], list[str]]:
    """TCP by every way, with all peers at once; what the peers are; ways that this kernel lacks."""
    rows: list[Row] = []
    left_out: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        tools = [Tool(peer, Path(folder)) for peer in PEERS]
        about = {tool.peer.name: tool.start() for tool in tools}
        for one in WAYS:
            try:
                rows.append(one(road))
            except pytest.skip.Exception as why:  # a way that this kernel lacks
                left_out.append(str(why))
        with _staying(road) as stays:
            time.sleep(3)
            rows.append(stays)
            for row in rows:
                found = watch.tcp(road.client, SOURCE, row.port)
                row.said["weir"] = found.payload
            for tool in tools:
                tool.stop()
        for tool in tools:
            for row in rows:
                if (said := tool.said(row.port)) is not None:
                    row.said[tool.peer.name] = said
    return rows, about, left_out


def datagrams_of(road: Wire, watch: Watch) -> list[Row]:
    """UDP by every way."""
    rows = []
    for way in datagrams.SENDS:
        for family in ("v4", "v6"):
            with udp_pair(road.client, road.server, family) as pair:
                talk = pair.run(way, SHORT, 701, reply=53)
                port = talk.servers[0].local[1]
                up, down = talk.client.sent, sum(server.sent for server in talk.servers)
                rows.append(
                    Row(
                        f"UDP {way}, {family}",
                        up,
                        down,
                        port,
                        {"weir": watch.udp(road.client, SOURCE, port).payload},
                    )
                )
    return rows


def requests_of(road: Wire, watch: Watch) -> list[Row]:
    """HTTP requests in several forms; ``up`` is their number."""
    asked, said = get(), answer(200, b"x" * 307)
    forms = {
        "one after the other": [[(CLIENT, asked), (SERVER, said)] * 997],
        "pipelined": [[(CLIENT, asked * 13), (SERVER, said * 13)]] * 7,
        "cut into single bytes": [
            [*((CLIENT, bytes([b])) for b in asked), *((SERVER, bytes([b])) for b in said)]
        ]
        * 11,
        "a connection each": [[(CLIENT, asked), (SERVER, said)]] * 503,
    }
    counts = {
        "one after the other": 997,
        "pipelined": 91,
        "cut into single bytes": 11,
        "a connection each": 503,
    }
    rows = []
    for name, talks_of in forms.items():
        with Dialogues(road.client) as talks:
            port = talks.listen()
            for lines in talks_of:
                talks.once(port, lines)
            found = watch.requests(road.client, SOURCE, port)
            rows.append(
                Row(f"HTTP, {name}", counts[name], 0, port, {"weir": (found.get(("http", "GET", 200), 0), 0)})
            )
    return rows


def main(path: str) -> None:
    with tempfile.TemporaryDirectory() as folder, make_wire() as road:
        os.environ[native.VARIABLE] = str(native.build(Path(folder)))
        with asking(road.client, road.server) as watch:
            rows, about, left_out = measure(road, watch)
            more = datagrams_of(road, watch)
            asked = requests_of(road, watch)
    tables = {"tcp": rows, "udp": more, "requests": asked}
    found: dict[str, object] = {"kernel": platform.release(), "peers": about, "left_out": left_out}
    found |= {name: [asdict(row) for row in table] for name, table in tables.items()}
    Path(path).write_text(json.dumps(found, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1])
