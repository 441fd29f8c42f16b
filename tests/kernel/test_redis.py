# SPDX-License-Identifier: Apache-2.0
"""Redis, command by command: what is counted is what the server itself counted."""

from __future__ import annotations

import re
import struct
from pathlib import Path

from tests.kernel.peers.dialogue import CLIENT, SERVER, Dialogues
from tests.kernel.peers.netns import Netns
from tests.kernel.test_http_servers import needed, running
from tests.kernel.watch import Watch, asking, nothing_lost
from weir.kernel import bpf
from weir.kernel.layout import DESTINATION, PROTOCOLS, REDIS_METHODS, SOURCE

OK, ERROR = 1, 2
PORT = 6379
Counts = dict[tuple[str, int], int]


def counted(watch: Watch, place: Netns, port: int) -> Counts:
    """Commands and statuses (0: no answer) as both ends counted them."""
    return watch.statements(place, port, "redis")


def command(*parts: str | bytes) -> bytes:
    texts = [part.encode() if isinstance(part, str) else part for part in parts]
    return b"*%d\r\n" % len(texts) + b"".join(b"$%d\r\n%s\r\n" % (len(text), text) for text in texts)


REPLIES = [
    b"+OK\r\n", b":1234\r\n", b"$-1\r\n", b"$0\r\n\r\n", b"$5\r\nhello\r\n", b"*-1\r\n", b"*0\r\n",
    b"*2\r\n$1\r\na\r\n:7\r\n", b"*2\r\n*3\r\n:1\r\n:2\r\n:3\r\n*1\r\n+x\r\n", b"_\r\n", b"#t\r\n",
    b"%1\r\n+k\r\n*2\r\n,1.5\r\n(12345\r\n", b"=7\r\ntxt:abc\r\n", b"~1\r\n+one\r\n",
    b"$5000\r\n" + b"\r\n+OK\r\n" * 714 + b"xx" + b"\r\n", b"+" + b"l" * 300 + b"\r\n",
]  # fmt: skip


def test_every_kind_of_answer(watch: Watch, place: Netns, talks: Dialogues) -> None:
    """In turns, then pipelined, when each answer's end must be found."""
    port = talks.listen()
    number = talks.connect(port)
    for reply in REPLIES:
        talks.say(number, [(CLIENT, command("GET", "key")), (SERVER, reply)])
    talks.say(number, [(CLIENT, command("get", "key") * 16), (SERVER, b"".join(REPLIES))])
    talks.say(number, [(CLIENT, command("PING") * 2), (SERVER, b"-ERR no\r\n"), (SERVER, b"!5\r\nERR x\r\n")])
    talks.close(number)
    assert counted(watch, place, port) == {("GET", OK): 32, ("PING", ERROR): 2}
    nothing_lost(watch)


def test_split_at_every_byte(watch: Watch, place: Netns, talks: Dialogues) -> None:
    port = talks.listen()
    asked = command("SET", "key", "v" * 70) + command("HGETALL", "key")
    said = b"+OK\r\n*4\r\n$1\r\na\r\n$-1\r\n:5\r\n$60\r\n" + b"y" * 60 + b"\r\n"
    for at in range(1, len(asked)):
        talks.once(port, [(CLIENT, asked[:at]), (CLIENT, asked[at:]), (SERVER, said)])
    for at in range(1, len(said)):
        talks.once(port, [(CLIENT, asked), (SERVER, said[:at]), (SERVER, said[at:])])
    times = len(asked) + len(said) - 2
    assert counted(watch, place, port) == {("SET", OK): times, ("HGETALL", OK): times}
    nothing_lost(watch)


def test_every_command_by_name(watch: Watch, place: Netns, talks: Dialogues) -> None:
    port = talks.listen()
    number = talks.connect(port)
    others = ["SUBSCRIB", "GETX", "G", "PSUBSCRIBE", "OBJECT", "G3T"]
    for name in (*REDIS_METHODS[2:], *others):
        talks.say(number, [(CLIENT, command(name, "a")), (SERVER, b"+OK\r\n")])
    talks.say(number, [(CLIENT, command("MGET", *(f"key{n}" for n in range(99)))), (SERVER, b"*0\r\n")])
    talks.close(number)
    wanted = {(name, OK): 1 + (name == "MGET") for name in REDIS_METHODS[2:]}
    assert counted(watch, place, port) == {**wanted, ("_OTHER", OK): len(others)}


def test_never_answered_and_pushed(watch: Watch, place: Netns, talks: Dialogues) -> None:
    port = talks.listen()
    number = talks.connect(port)
    talks.say(number, [(CLIENT, command("PING")), (SERVER, b"+PONG\r\n"), (SERVER, b">1\r\n+news\r\n")])
    talks.say(
        number, [(CLIENT, command("GET", "a")), (SERVER, b">2\r\n+a\r\n+b\r\n"), (SERVER, b"$1\r\nx\r\n")]
    )
    talks.say(number, [(CLIENT, command("BLPOP", "a", "0"))])
    talks.close(number)
    watch.until(lambda: len(counted(watch, place, port)) == 3)
    assert counted(watch, place, port) == {("PING", OK): 1, ("GET", OK): 1, ("_OTHER", 0): 1}


def test_redis_under_load(watch: Watch, place: Netns, tmp_path: Path) -> None:
    """As many of each command as the server's own commandstats, sequential and 16 at once."""
    needed("redis-server", "redis-benchmark", "redis-cli")
    options = [
        "--port",
        str(PORT),
        "--bind",
        "127.0.0.1",
        "--save",
        "",
        "--appendonly",
        "no",
        "--dir",
        str(tmp_path),
    ]
    with running(place, PORT, "redis-server", *options):
        small = "get,set,incr,lpush,rpop,sadd,hset"
        for pipeline, number, kinds in (("1", "5003", f"{small},mset,lrange_100"), ("16", "20011", small)):
            place.run("redis-benchmark", "-q", "-c", "13", "-P", pipeline, "-n", number, "-t", kinds)
        place.run("redis-cli", "EVAL", "return redis.error_reply('no')", "0")
        told = place.run("redis-cli", "INFO", "commandstats")
        found = counted(watch, place, PORT)
    stats = {name.upper(): int(n) for name, n in re.findall(r"cmdstat_(\w+):calls=(\d+)", told)}
    named = {name: n for name, n in stats.items() if name in REDIS_METHODS}
    assert {name: n for (name, status), n in found.items() if name != "_OTHER" and status == OK} == {
        name: n for name, n in named.items() if name != "EVAL"
    }
    assert found["EVAL", ERROR] == 1
    assert sum(named.values()) > 7 * 25_000
    nothing_lost(watch, "reset_unmatched")


def test_without_its_program(place: Netns, talks: Dialogues) -> None:
    """Where the kernel refuses it, its connections are ones of a protocol that is not known."""
    port = talks.listen()
    with asking(place, nat="off") as watch:
        key = struct.pack("<I", PROTOCOLS.index("redis"))
        bpf.map_delete(watch.kernel.maps.fd("readers"), key)
        talks.once(port, [(CLIENT, command("GET", "a")), (SERVER, b"$-1\r\n")] * 7)
        for role in (SOURCE, DESTINATION):
            assert watch.requests(place, role, port) == {("tcp", "", 0): 7}
