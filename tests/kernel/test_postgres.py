# SPDX-License-Identifier: Apache-2.0
"""PostgreSQL, statement by statement: what is counted is what the server itself counted."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kernel.peers.dialogue import CLIENT, SERVER, Dialogues, Line
from tests.kernel.peers.netns import Netns, make_netns
from tests.kernel.test_http import LOSS
from tests.kernel.test_http_servers import needed, running
from tests.kernel.watch import Watch, asking, nothing_lost
from weir.kernel.layout import DESTINATION, SOURCE, SQL_METHODS

OK, ERROR = 1, 2
PORT = 5432
Counts = dict[tuple[str, int], int]


def counted(watch: Watch, place: Netns, port: int) -> Counts:
    """Kinds of statements and statuses (0: no answer) as both ends counted them."""
    return watch.statements(place, port, "postgresql")


def message(kind: str, body: bytes = b"") -> bytes:
    return kind.encode() + (len(body) + 4).to_bytes(4, "big") + body


def query(text: str) -> bytes:
    return message("Q", text.encode() + b"\0")


def done(tag: str) -> bytes:
    return message("C", tag.encode() + b"\0")


READY = message("Z", b"I")
STARTUP = b"\0\0\0\x17\0\3\0\0user\0postgres\0\0"
GREETING = message("R", bytes(4)) + message("S", b"server_version\x0015.1\0") + message("K", bytes(8)) + READY
BEGUN: list[Line] = [
    (CLIENT, bytes.fromhex("0000000804d2162f")), (SERVER, b"N"), (CLIENT, STARTUP), (SERVER, GREETING),
]  # fmt: skip
ROWS = message("T", b"\0\1" + bytes(24)) + b"".join(
    message("D", b"\0\1\0\0\0" + bytes([n]) + b"x" * n) for n in range(60)
)
FAILED = message("E", b"SERROR\0C22012\0Mdivision by zero\0\0")


def test_conversations(watch: Watch, place: Netns, talks: Dialogues) -> None:
    """Simple and extended queries, several statements in one, errors before and after a first one."""
    port = talks.listen()
    parse, sync = message("P", b"\0insert into t\0\0\0"), message("S")
    bind, run = message("B", bytes(8)), message("E", bytes(5))
    bound = message("1") + message("2") + message("n")
    talks.once(port, [
        *BEGUN,
        (CLIENT, query("select 1")), (SERVER, ROWS + done("SELECT 60") + READY),
        (CLIENT, query("\n begin; UPDATE t")),
        (SERVER, done("BEGIN") + message("N", b"note") + done("UPDATE 3") + READY),
        (CLIENT, query("delete from t")), (SERVER, FAILED + READY),
        (CLIENT, query("savepoint a; drop x")), (SERVER, done("SAVEPOINT") + FAILED + READY),
        (CLIENT, query("")), (SERVER, message("I") + READY),
        (CLIENT, parse + bind + run + sync), (SERVER, bound + done("INSERT 0 1") + READY),
        (CLIENT, parse + (bind + run) * 29 + sync), (SERVER, bound + done("INSERT 0 1") * 29 + READY),
        (CLIENT, parse + bind + run + sync), (SERVER, FAILED + READY),
        (CLIENT, message("P", b"name\0select 1\0\0\0") + message("D", b"Sname\0") + sync),
        (SERVER, message("1") + message("t", bytes(6)) + message("T", bytes(26)) + READY),
        (CLIENT, query("copy t from stdin")), (SERVER, message("G", bytes(5))),
        (CLIENT, message("d", b"1\t2\n") * 5 + message("c")), (SERVER, done("COPY 5") + READY),
        (CLIENT, (query("select 2") + query("rollback")) * 7),
        (SERVER, (ROWS + done("SELECT 60") + READY + done("ROLLBACK") + READY) * 7),
        (CLIENT, query("vacuum")), (CLIENT, message("X")),
    ])  # fmt: skip
    assert counted(watch, place, port) == {
        ("SELECT", OK): 8, ("BEGIN", OK): 1, ("UPDATE", OK): 1, ("DELETE", ERROR): 1, ("SAVEPOINT", OK): 1,
        ("_OTHER", ERROR): 1, ("_OTHER", OK): 1, ("INSERT", OK): 30, ("INSERT", ERROR): 1, ("PREPARE", OK): 1,
        ("COPY", OK): 1, ("ROLLBACK", OK): 7, ("VACUUM", 0): 1,
    }  # fmt: skip
    nothing_lost(watch)


def test_every_kind_by_name(watch: Watch, place: Netns, talks: Dialogues) -> None:
    port, kinds = talks.listen(), [name for name in SQL_METHODS[2:] if name not in ("PING", "INIT DB")]
    said = [line for name in (*kinds, "CLUSTER", "SELECTX", "X") for line in
            ((CLIENT, query(name.lower() + " x")), (SERVER, done(name + " 1") + READY))]  # fmt: skip
    talks.once(port, [*BEGUN, *said])
    assert counted(watch, place, port) == {**{(name, OK): 1 for name in kinds}, ("_OTHER", OK): 3}


@contextlib.contextmanager
def lossy_road() -> Iterator[tuple[Netns, Dialogues, Watch, int]]:
    """A namespace whose loopback loses some of what a server says, and sends it again soon."""
    with make_netns() as lossy, Dialogues(lossy) as talks, asking(lossy) as watch:
        lossy.run("ip", "link", "set", "lo", "mtu", "1500")
        lossy.run(
            "ip", "route", "replace", "local", "127.0.0.0/8", "dev", "lo", "table", "local", "rto_min", "5ms"
        )
        yield lossy, talks, watch, talks.listen()


_ROWS = message("T", b"\0\1" + bytes(24)) + message("D", b"\0\1\0\0\0\x14" + b"x" * 20) * 3000


def test_rows_that_were_missed() -> None:
    """Of a long answer over a road that loses some of it, the end tells; if that is lost, nobody knows."""
    with lossy_road() as (lossy, talks, watch, port):
        number = talks.connect(port)
        talks.say(number, BEGUN)
        lossy.run("nft", "-f", "-", stdin=LOSS % (port, port))
        for n in range(131):
            talks.say(number, [(CLIENT, query("select *")), (SERVER, _ROWS + done(f"SELECT {n}") + READY)])
        lossy.run("nft", "delete", "table", "inet", "weirt")
        talks.close(number)
        assert watch.tcp(lossy, None, port).retransmitted > 0
        unread = watch.drain().events["request_unparsed"]
        for role in (SOURCE, DESTINATION):
            found = watch.requests(lossy, role, port)
            assert set(found) <= {("postgresql", "SELECT", OK)}
            assert 131 - unread <= sum(found.values()) <= 131
            assert sum(found.values()) > 90


def test_a_last_answer_that_came_in_disorder() -> None:
    """Of a client that has all of it and closes: what was not read twice is no failure."""
    with lossy_road() as (lossy, talks, watch, port):
        lossy.run("nft", "-f", "-", stdin=LOSS % (port, port))
        for _ in range(101):
            number = talks.connect(port)
            talks.say(
                number, [*BEGUN, (CLIENT, query("select *")), (SERVER, _ROWS + done("SELECT 1") + READY)]
            )
            talks.close(number)
        lossy.run("nft", "delete", "table", "inet", "weirt")
        assert watch.tcp(lossy, None, port).retransmitted > 0
        for role in (SOURCE, DESTINATION):
            assert set(watch.requests(lossy, role, port)) == {("postgresql", "SELECT", OK)}


def test_split_at_every_byte(watch: Watch, place: Netns, talks: Dialogues) -> None:
    port, times = talks.listen(), 0
    lines: list[Line] = [
        *BEGUN, (CLIENT, query("  insert into t values (1)") + query("select 1")),
        (SERVER, FAILED + READY + ROWS[:200] + message("D", b"\0\0") + done("SELECT 60") + READY),
    ]  # fmt: skip
    whole = message("T", b"\0\1" + bytes(24)) + message("D", b"\0\1\0\0\0\1x") * 3
    lines[-1] = (SERVER, FAILED + READY + whole + done("SELECT 60") + READY)
    for number, (who, text) in enumerate(lines):
        for at in range(1, len(text)):
            talks.once(port, [*lines[:number], (who, text[:at]), (who, text[at:]), *lines[number + 1 :]])
            times += 1
    assert counted(watch, place, port) == {("INSERT", ERROR): times, ("SELECT", OK): times}
    nothing_lost(watch)


def test_encrypted(watch: Watch, place: Netns, talks: Dialogues) -> None:
    """What comes after a server's yes to TLS are turns."""
    port = talks.listen()
    talks.once(port, [BEGUN[0], (SERVER, b"S"), *[(CLIENT, b"\x16\3\1"), (SERVER, b"\x16\3\3")] * 3])
    for role in (SOURCE, DESTINATION):
        assert watch.requests(place, role, port) == {("tcp", "", 0): 3}


def test_older_connections(place: Netns, talks: Dialogues) -> None:
    port = talks.listen()
    number = talks.connect(port)
    turn = [(CLIENT, query("select 1")), (SERVER, ROWS + done("SELECT 60") + READY)]
    talks.say(number, [*BEGUN, *turn * 2])
    with asking(place, nat="off") as young:
        talks.say(number, turn * 7)
        talks.close(number)
        assert counted(young, place, port) == {("SELECT", OK): 7}
        nothing_lost(young)


@pytest.fixture(scope="module")
def server(place: Netns) -> Iterator[None]:
    """PostgreSQL as its own user, counting statements by pg_stat_statements."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
    if not found:
        pytest.skip("postgresql is not installed")
    needed("pgbench", "psql")
    home = Path(tempfile.mkdtemp(prefix="weirt-pg-"))  # where another user can go
    shutil.chown(home, "postgres", "postgres")
    as_user, data = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"], home / "data"
    try:
        initdb = [*as_user, str(found[-1].with_name("initdb")), "-D", str(data), "-A", "trust", "-N"]
        subprocess.run(initdb, check=True, capture_output=True, cwd="/", env={**os.environ, "LC_ALL": "C"})
        settings = {
            "listen_addresses": "127.0.0.1", "port": PORT, "unix_socket_directories": str(home),
            "fsync": "off", "shared_preload_libraries": "pg_stat_statements", "max_connections": 40,
        }  # fmt: skip
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        with running(place, PORT, *as_user, str(found[-1]), "-D", str(data), *options):
            psql(place, "create extension pg_stat_statements")
            place.run("pgbench", "-q", "-i", "-h", str(home), *WHERE[2:])
            yield
    finally:
        shutil.rmtree(home)


WHERE = ("-h", "127.0.0.1", "-U", "postgres", "postgres")
_COUNTS = (
    """select upper((regexp_match(query, '^\\s*(\\w+)'))[1]), sum(calls) from pg_stat_statements group by 1"""
)


def psql(place: Netns, *statements: str) -> str:
    """What it printed; that a statement fails is no failure."""
    arguments = [part for text in statements for part in ("-c", text)]
    return place.run("sh", "-c", 'psql "$@" 2>&1 || :', "psql", "-qAt", *arguments, *WHERE)


def own_counts(place: Netns) -> Counts:
    """What the server counted, by the word a statement ends with; its own question is among the next ones."""
    told = psql(place, _COUNTS)
    found = Counter({name: int(n) for name, n in re.findall(r"(\w+)\|(\d+)", told)})
    found["COMMIT"] += found.pop("END", 0)
    return {(name, OK): n for name, n in found.items() if n}


@pytest.mark.usefixtures("server")
@pytest.mark.parametrize("mode", ["simple", "extended", "prepared"])
def test_pgbench(watch: Watch, place: Netns, mode: str) -> None:
    """Every statement of its transactions, by kind, in each of the protocol's ways."""
    psql(place, "select pg_stat_statements_reset()")
    watch.mark()
    said = place.run("pgbench", "-n", "-M", mode, "-c", "7", "-t", "211", *WHERE)
    found = counted(watch, place, PORT)
    assert "processed: 1477/1477" in said
    assert found["UPDATE", OK] == 3 * 1477
    prepared = found.pop(("PREPARE", OK), 0)  # one for each statement of each client
    assert prepared == (7 * 7 if mode == "prepared" else 0)
    own = own_counts(place)
    own["SELECT", OK] -= 1  # that of pg_stat_statements_reset
    for kind in ("BEGIN", "COMMIT"):  # which it counts once where they are prepared
        own[kind, OK] = 1477
    assert found == own
    nothing_lost(watch, "reset_unmatched")


@pytest.mark.usefixtures("server")
def test_psql(watch: Watch, place: Netns) -> None:
    """Errors, several statements in one query, COPY both ways, a result of many rows."""
    psql(place, "select pg_stat_statements_reset()", "create table weir (a int, b text)")
    watch.mark()
    psql(place, "select 1/0")
    psql(place, "insert into weir select n, repeat('x', 50) from generate_series(1, 20011) n")
    psql(place, "select 1; select 2; update weir set a = a + 1 where a < 100", "nonsense", "explain select 1")
    assert psql(place, "copy weir to stdout").count("\n") == 20_011
    assert psql(place, "select * from weir").count("\n") == 20_011
    place.run("psql", "-q", *WHERE, "-c", "copy weir from stdin", stdin="7\tseven\n" * 1009)
    assert counted(watch, place, PORT) == {
        ("SELECT", ERROR): 1, ("INSERT", OK): 1, ("SELECT", OK): 3, ("UPDATE", OK): 1, ("_OTHER", ERROR): 1,
        ("EXPLAIN", OK): 1, ("COPY", OK): 2,
    }  # fmt: skip
    nothing_lost(watch, "reset_unmatched")
