# SPDX-License-Identifier: Apache-2.0
"""MySQL's protocol, command by command: what is counted is what the server itself counted."""

from __future__ import annotations

import re
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kernel.peers.dialogue import CLIENT, SERVER, Dialogues, Line
from tests.kernel.peers.netns import Netns, make_netns
from tests.kernel.test_http_servers import needed, running
from tests.kernel.watch import Watch, asking, nothing_lost
from weir.kernel.layout import DESTINATION, SOURCE

OK, ERROR = 1, 2
PORT = 3306
Counts = dict[tuple[str, int], int]
QUERY, PING, PREPARE, EXECUTE, LONG_DATA, CLOSE = 3, 14, 22, 23, 24, 25


def counted(watch: Watch, place: Netns, port: int) -> Counts:
    """Kinds of commands and statuses (0: no answer) as both ends counted them."""
    return watch.statements(place, port, "mysql")


def packets(*bodies: bytes, first: int = 0) -> bytes:
    """Bodies with their heads, numbered on."""
    return b"".join(
        len(body).to_bytes(3, "little") + bytes([(first + n) % 256]) + body for n, body in enumerate(bodies)
    )


def command(kind: int, body: bytes = b"") -> bytes:
    return packets(bytes([kind]) + body)


def hello(capabilities: int, size: int = 60) -> bytes:
    return packets(capabilities.to_bytes(4, "little") + bytes(size - 4), first=1)


GREETING = packets(b"\x0a10.11.6-MariaDB\0" + bytes(60))
DONE = packets(b"\0\0\0\2\0\0\0", first=1)
FAILED = packets(b"\xff\x48\x04#HY000no", first=1)
ROWS = packets(
    b"\1", b"\3def" + bytes(30), b"\xfe\0\0\2\0", *(b"\1x" for _ in range(99)), b"\xfe\0\0\2\0", first=1
)
BEGUN: list[Line] = [
    (SERVER, GREETING),
    (CLIENT, hello(0xA685)),
    (SERVER, packets(b"\0\0\0\2\0\0\0", first=2)),
]


def test_conversations(watch: Watch, place: Netns, talks: Dialogues) -> None:
    port = talks.listen()
    talks.once(port, [
        *BEGUN,
        (CLIENT, command(QUERY, b"select 1")), (SERVER, ROWS), (CLIENT, command(PING)), (SERVER, DONE),
        (CLIENT, command(QUERY, b"\0\1 insert into t")), (SERVER, DONE),
        (CLIENT, command(QUERY, b"  UPDATE t" + b"x" * 70_000)), (SERVER, FAILED),
        (CLIENT, command(PREPARE, b"select ?")), (SERVER, packets(b"\0" + bytes(11), b"x", b"y", first=1)),
        (CLIENT, command(LONG_DATA, b"1" * 99) + command(EXECUTE, b"1" * 9)),
        (SERVER, ROWS[:50]), (SERVER, ROWS[50:]),
        (CLIENT, command(CLOSE, b"1234") + command(QUERY, b"load data local")),
        (SERVER, packets(b"\xfbfile", first=1)),
        (CLIENT, packets(b"1,2\n" * 99, b"", first=2)), (SERVER, packets(b"\0\0\0", first=4)),
        (CLIENT, command(QUERY, b"commit")), (SERVER, DONE),
        (CLIENT, command(QUERY, b"/* hi */ select 1")), (SERVER, ROWS),
        (CLIENT, command(PREPARE, b"x") + command(EXECUTE, b"123456789") * 5),
        (SERVER, DONE + ROWS * 4), (SERVER, FAILED),
        (CLIENT, command(QUERY, b"select sleep(9)")), (CLIENT, command(1)),
    ])  # fmt: skip
    assert counted(watch, place, port) == {
        ("SELECT", OK): 1, ("PING", OK): 1, ("INSERT", OK): 1, ("UPDATE", ERROR): 1, ("PREPARE", OK): 2,
        ("EXECUTE", OK): 5, ("LOAD", OK): 1, ("COMMIT", OK): 1, ("_OTHER", OK): 1, ("EXECUTE", ERROR): 1,
        ("SELECT", 0): 1,
    }  # fmt: skip
    nothing_lost(watch)


def test_a_long_file() -> None:
    """Of which later packets have a command's number: nothing of it is taken for one."""
    with make_netns() as place, Dialogues(place) as talks, asking(place) as watch:
        port = talks.listen()
        talks.once(port, [
            *BEGUN, (CLIENT, command(QUERY, b"load data local")), (SERVER, packets(b"\xfbfile", first=1)),
            (CLIENT, packets(*[b"\3select 1"] * 600, first=2)), (SERVER, packets(b"\0\0\0", first=90)),
            *[(CLIENT, command(PING)), (SERVER, DONE)] * 3,
        ])  # fmt: skip
        assert counted(watch, place, port) == {("LOAD", OK): 1, ("PING", OK): 3}
        assert watch.drain().events["request_unparsed"] == 2  # one at either end


def test_split_at_every_byte(watch: Watch, place: Netns, talks: Dialogues) -> None:
    port, times = talks.listen(), 0
    lines: list[Line] = [
        *BEGUN[1:], (CLIENT, command(QUERY, b"insert into t values (1)") + command(EXECUTE, b"x" * 30)),
        (SERVER, FAILED + ROWS[:90]), (CLIENT, command(PING)), (SERVER, DONE),
    ]  # fmt: skip
    for number, (who, text) in enumerate(lines):
        for at in range(1, len(text)):
            talks.once(
                port, [BEGUN[0], *lines[:number], (who, text[:at]), (who, text[at:]), *lines[number + 1 :]]
            )
            times += 1
    assert counted(watch, place, port) == {
        ("INSERT", ERROR): times, ("EXECUTE", OK): times, ("PING", OK): times,
    }  # fmt: skip
    nothing_lost(watch)


@pytest.mark.parametrize("capabilities", [0x800, 0x20, 1 << 26], ids=["tls", "compressed", "zstd"])
def test_what_cannot_be_read(watch: Watch, place: Netns, talks: Dialogues, capabilities: int) -> None:
    """A client that goes on with TLS or compressed: turns."""
    port = talks.listen()
    talks.once(
        port,
        [
            BEGUN[0],
            (CLIENT, hello(0xA205 | capabilities, 32)),
            *[(CLIENT, b"\x16\3\1"), (SERVER, b"\x16\3")] * 3,
        ],
    )
    for role in (SOURCE, DESTINATION):
        assert watch.requests(place, role, port) == {("tcp", "", 0): 3}


def test_older_connections(place: Netns, talks: Dialogues) -> None:
    port = talks.listen()
    number = talks.connect(port)
    turn = [(CLIENT, command(QUERY, b"select * from table_of_mine")), (SERVER, ROWS)]
    talks.say(number, [*BEGUN, *turn * 2])
    with asking(place, nat="off") as young:
        talks.say(number, turn * 7)
        talks.close(number)
        assert counted(young, place, port) == {("SELECT", OK): 7}
        nothing_lost(young)


@pytest.fixture(scope="module")
def server(place: Netns, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """MariaDB, which counts commands by kind; its socket."""
    needed("mariadbd", "mariadb-install-db", "mariadb", "mariadb-slap")
    home = tmp_path_factory.mktemp("mariadb")
    options = [f"--datadir={home}/data", "--user=root"]
    subprocess.run(
        ["mariadb-install-db", "--no-defaults", *options, "--auth-root-authentication-method=normal"],
        check=True, capture_output=True,
    )  # fmt: skip
    options += [f"--port={PORT}", f"--socket={home}/socket", f"--pid-file={home}/pid"]
    options += ["--bind-address=127.0.0.1", "--skip-grant-tables"]
    with running(place, PORT, "mariadbd", "--no-defaults", *options):
        yield home / "socket"


TCP = ("--no-defaults", "--protocol=tcp", "--host=127.0.0.1", f"--port={PORT}", "--user=root", "--skip-ssl")


def own_counts(socket: Path) -> Counter[str]:
    """What the server has counted, asked over its socket, which Weir does not see."""
    told = subprocess.run(
        ["mariadb", "--no-defaults", f"--socket={socket}", "-NBe", "show global status like 'Com_%'"],
        check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    return Counter({name.upper(): int(n) for name, n in re.findall(r"Com_(\w+)\t(\d+)", told) if int(n)})


def test_mariadb(watch: Watch, place: Netns, server: Path) -> None:
    """mariadb-slap's mix of reads and writes, and statements by hand, errors among them."""
    before = own_counts(server)
    place.run(
        "mariadb-slap", *TCP, "--auto-generate-sql", "--auto-generate-sql-load-type=mixed", "--concurrency=7",
        "--number-of-queries=7007", "--auto-generate-sql-write-number=101",
    )  # fmt: skip
    script = (
        "create database d; use d; create table t (a int); insert into t values (1), (2); update t set a = 3;"
        "delete from t; begin; select * from t; commit; set @a = 1; select count(*) from t; drop database d;"
    )
    place.run("mariadb", *TCP, stdin=script)
    place.run("sh", "-c", 'mariadb "$@" || :', "sh", *TCP, "-e", "select nothing from nowhere")
    found = counted(watch, place, PORT)
    own = own_counts(server) - before
    named = ("SELECT", "INSERT", "UPDATE", "DELETE", "BEGIN", "COMMIT")
    assert {kind: found[kind, OK] for kind in named} == {kind: own[kind] for kind in named}
    assert found["SELECT", ERROR] == 1
    assert found["SELECT", OK] > 3000
    assert found["INSERT", OK] > 3000
    created = sum(n for name, n in own.items() if name.startswith("CREATE_"))
    assert found["CREATE", OK] == created
    nothing_lost(watch, "reset_unmatched")
