# SPDX-License-Identifier: Apache-2.0
"""HTTP/2 and gRPC, stream by stream, on real connections: what is counted is what was said."""

from __future__ import annotations

import ast
import random
import struct
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from hpack import Encoder

from tests.kernel.peers.dialogue import CLIENT, SERVER, Dialogues, Line
from tests.kernel.peers.http2_talk import GRPC, Spoken, frame
from tests.kernel.peers.http_text import cut
from tests.kernel.peers.netns import Netns, make_netns
from tests.kernel.test_http import LOSS, counted
from tests.kernel.watch import Watch, asking, nothing_lost
from weir.kernel import bpf
from weir.kernel.compiled import Compiled, Program
from weir.kernel.layout import DESTINATION, PROTOCOLS, SOURCE

Counts = dict[tuple[str, str, int], int]
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0, b"")
HEADERS, END_STREAM, END_HEADERS = 1, 1, 4


def http2(**counts: int) -> Counts:
    """``GET_200=3`` → the rows of that."""
    return {("http2", what.split("_")[0], int(what.split("_")[1])): n for what, n in counts.items()}


def grpc(*codes: int | None) -> Counter[tuple[str, str, int]]:
    """Calls that ended with these codes, None: without an answer."""
    return Counter(("grpc", "", 0 if code is None else code + 1) for code in codes)


@pytest.mark.parametrize("family", ["v4", "v6"])
@pytest.mark.parametrize("greets", [False, True])
def test_one_after_the_other(watch: Watch, place: Netns, talks: Dialogues, family: str, greets: bool) -> None:
    """All methods and statuses; either end speaks first."""
    port = talks.listen(family)
    spoken, wanted = Spoken(greets), Counter[tuple[str, str, int]]()
    methods = ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "TRACE", "PATCH", "PROPFIND")
    for status in (200, 204, 206, 304, 400, 404, 500, 201, 302, 418, 503, 599, 999):
        for number, method in enumerate(methods):
            empty = method == "HEAD" or status in (204, 304)
            spoken.answer(
                spoken.ask(method, f"/{number}", ("x-number", str(number)), body=b"q" * number),
                status, ("server", "h2"), ("x-long", "l" * 10 * number), body=b"" if empty else b"y" * number,
            )  # fmt: skip
            wanted["http2", method if method != "PROPFIND" else "_OTHER", status] += 1
    talks.once(port, spoken.lines())
    assert counted(watch, place, port) == wanted
    nothing_lost(watch)


def test_many_at_once(watch: Watch, place: Netns, talks: Dialogues) -> None:
    """Ninety-seven at once, answered in any order, interim answers and bodies between."""
    port, spoken, rng = talks.listen(), Spoken(), random.Random(7)
    for _ in range(3):
        streams = [spoken.ask("POST", "/", end=False) for _ in range(97)]
        rng.shuffle(streams)
        for stream in streams[:31]:
            spoken.ends[SERVER].send_headers(stream, [(":status", "103"), ("link", "</a>")])
            spoken.ends[CLIENT].send_data(stream, b"q" * rng.randrange(500), end_stream=True)
        for number, stream in enumerate(streams):
            spoken.answer(stream, (200, 201, 503)[number % 3], body=b"x" * rng.randrange(300))
        for stream in streams[31:]:  # which had its answer before it was whole
            spoken.ends[CLIENT].end_stream(stream)
    talks.once(port, spoken.lines())
    assert counted(watch, place, port) == http2(POST_200=99, POST_201=96, POST_503=96)
    nothing_lost(watch)


def test_split_at_every_byte(watch: Watch, place: Netns, talks: Dialogues) -> None:
    spoken = Spoken()
    for status in (200, 404, 201):
        spoken.answer(spoken.ask("PUT", "/x", ("x-a", "b" * 40), body=b"q" * 9), status, body=b"x" * 5)
    spoken.call(5)
    lines, port, times = spoken.lines(), talks.listen(), 0
    for number, (who, text) in enumerate(lines):
        for at in range(1, len(text)):
            talks.once(port, [*lines[:number], (who, text[:at]), (who, text[at:]), *lines[number + 1 :]])
            times += 1
    assert counted(watch, place, port) == {
        **http2(PUT_200=times, PUT_404=times, PUT_201=times), ("grpc", "", 6): times,
    }  # fmt: skip
    nothing_lost(watch)


def test_byte_by_byte(watch: Watch, place: Netns, talks: Dialogues) -> None:
    spoken, port = Spoken(), talks.listen()
    for status in (200, 404):
        spoken.answer(spoken.ask("PATCH", "/x", body=b"q" * 9), status, ("date", "today"), body=b"x" * 5)
    spoken.call(0)
    talks.once(port, [(who, text[i : i + 1]) for who, text in spoken.lines() for i in range(len(text))])
    assert counted(watch, place, port) == {**http2(PATCH_200=1, PATCH_404=1), ("grpc", "", 1): 1}
    nothing_lost(watch)


def test_all_in_one_segment(watch: Watch, place: Netns, talks: Dialogues) -> None:
    """As many calls and answers as a segment holds, within what is read of one."""
    spoken, port = Spoken(), talks.listen()
    begun = spoken.lines()
    streams = [spoken.ask("POST", "/a.B/C", *GRPC, body=b"\0\0\0\0\1x") for _ in range(97)]
    asked = spoken.lines()
    for stream in streams:
        spoken.answer(stream, 200, GRPC[0], body=b"\0\0\0\0\1x", trailers=[("grpc-status", "0")])
    said = spoken.lines()
    together = [(who, b"".join(text for end, text in part if end == who))
                for part, who in ((asked, CLIENT), (said, SERVER))]  # fmt: skip
    talks.once(port, [*begun, *together])
    assert counted(watch, place, port) == grpc(*[0] * 97)
    nothing_lost(watch)


def test_grpc(watch: Watch, place: Netns, talks: Dialogues) -> None:
    """Every code, in trailers and trailers only, by string and by index; calls with several messages."""
    port, spoken = talks.listen(), Spoken()
    for only in (False, True):
        for code in (*range(17), *range(17)):
            spoken.call(code, ("grpc-timeout", f"{code}S"), only=only)
    for kind in (
        "application/grpc+proto",
        "application/grpc;a=b",
        "application/grpc-web",
        "application/json",
    ):
        stream = spoken.ask("POST", "/a.B/C", ("content-type", kind), body=b"x")
        spoken.answer(stream, 200, body=b"x", trailers=[("grpc-status", "3")])
    stream = spoken.ask("POST", "/a.B/C", *GRPC, body=b"one", end=False)
    for text in (b"two", b"three"):
        spoken.ends[CLIENT].send_data(stream, text)
        spoken.flush()
    spoken.answer(stream, 200, body=b"x" * 1000, trailers=[("grpc-status", "0")])
    talks.once(port, spoken.lines())
    wanted = grpc(*[code for code in range(17) for _ in range(4)], 3, 3, 0)
    assert counted(watch, place, port) == {**wanted, **http2(POST_200=2)}
    nothing_lost(watch)


def test_what_stands_for_a_code_of_grpc(watch: Watch, place: Netns, talks: Dialogues) -> None:
    """An answer without one (of a proxy), a stream that either end resets, a call that is never answered."""
    port, spoken = talks.listen(), Spoken()
    for status in (200, 400, 401, 403, 404, 429, 502, 503, 504, 500):
        spoken.answer(spoken.ask("POST", "/a.B/C", *GRPC, body=b"x"), status, body=b"no")
    for code in (0, 2, 7, 8, 11, 12):
        spoken.reset(SERVER, spoken.ask("POST", "/a.B/C", *GRPC, body=b"x"), code)
    spoken.reset(CLIENT, spoken.ask("POST", "/a.B/C", *GRPC, body=b"x"), 8)
    for _ in range(3):
        spoken.ask("POST", "/a.B/C", *GRPC, body=b"x")
    talks.once(port, spoken.lines())
    wanted = grpc(2, 13, 16, 7, 12, 14, 14, 14, 14, 2, 13, 13, 14, 1, 8, 7, 1, None, None, None)
    assert counted(watch, place, port) == wanted
    nothing_lost(watch)


@pytest.mark.parametrize("how", ["fin", "reset"])
def test_never_answered(watch: Watch, place: Netns, talks: Dialogues, how: str) -> None:
    port, spoken = talks.listen(), Spoken()
    streams = [spoken.ask("GET", f"/{n}") for n in range(13)]
    for stream in streams[:5]:
        spoken.answer(stream, 200, body=b"x")
    spoken.reset(SERVER, streams[5], 7)
    spoken.reset(CLIENT, streams[6], 8)
    spoken.ends[SERVER].close_connection(last_stream_id=streams[9])
    spoken.flush()
    number = talks.connect(port)
    talks.say(number, spoken.lines())
    talks.close(number, (SERVER, CLIENT), reset=how == "reset")
    assert counted(watch, place, port) == http2(GET_200=5, GET_0=8)
    nothing_lost(watch, "reset_unmatched")


def test_frames_of_every_kind(watch: Watch, place: Netns, talks: Dialogues) -> None:
    """Padding, priorities, continuations, pushes, types to come: the headers count all the same."""
    port, asks, says = talks.listen(), Encoder(), Encoder()
    head = [(":method", "DELETE"), (":path", "/"), (":scheme", "http"), ("x", "y" * 20)]
    asked, said = b"", b""
    for number in range(7):
        stream = 2 * number + 1
        block = asks.encode(head, huffman=bool(number & 1))
        pads, padded = number, 8 if number else 0
        plain = (bytes([pads]) if padded else b"") + bytes(5) + block + bytes(pads)
        asked += frame(HEADERS, 0x25 | padded, stream, plain)
        asked += frame(0xA, 0xFF, 0, b"later") + frame(6, 0, 0, b"12345678") + frame(2, 0, stream, bytes(5))
        push = says.encode([(":method", "GET"), (":status", "500")])
        said += frame(5, 4, stream, (2 + 2 * number).to_bytes(4, "big") + push)
        said += frame(HEADERS, 4 | padded, 2 + 2 * number, (bytes([pads]) if padded else b"") + says.encode(
            [(":status", "200")]) + bytes(pads))  # fmt: skip
        said += frame(0, 1, 2 + 2 * number, b"pushed")
        said += frame(HEADERS, 0, stream, says.encode([(":status", "202")]))
        said += b"".join(frame(9, 0, stream, b"") for _ in range(number))
        said += frame(9, 4, stream, says.encode([("a", "b")]))
        said += frame(0, 9, stream, b"\2x\0\0") + frame(8, 0, 0, b"\0\0\1\0") + frame(4, 1, 0, b"")
    talks.once(port, [(CLIENT, PREFACE + asked), (SERVER, frame(4, 0, 0, b"") + said)])
    assert counted(watch, place, port) == http2(DELETE_202=7)
    nothing_lost(watch)


#: RFC 7541 appendix C.3 to C.6: three requests and three answers, each plain and by Huffman's code; the
#: answers' table has 256 bytes, so that entries are evicted.
_C3 = (
    "828684410f7777772e6578616d706c652e636f6d", "828684be58086e6f2d6361636865",
    "828785bf400a637573746f6d2d6b65790c637573746f6d2d76616c7565",
)  # fmt: skip
_C4 = (
    "828684418cf1e3c2e5f23a6ba0ab90f4ff", "828684be5886a8eb10649cbf",
    "828785bf408825a849e95ba97d7f8925a849e95bb8e8b4bf",
)  # fmt: skip
_C5 = (
    (
        "4803333032580770726976617465611d4d6f6e2c203231204f637420323031332032303a31333a323120474d546e1768747470733a"
        "2f2f7777772e6578616d706c652e636f6d"
    ),
    "4803333037c1c0bf",
    (
        "88c1611d4d6f6e2c203231204f637420323031332032303a31333a323220474d54c05a04677a69707738666f6f3d4153444a4b4851"
        "4b425a584f5157454f50495541585157454f49553b206d61782d6167653d333630303b2076657273696f6e3d31"
    ),
)
_C6 = (
    "488264025885aec3771a4b6196d07abe941054d444a8200595040b8166e082a62d1bff6e919d29ad171863c78f0b97c8e9ae82ae43d3",
    "4883640effc1c0bf",
    (
        "88c16196d07abe941054d444a8200595040b8166e084a62d1bffc05a839bd9ab77ad94e7821dd7f2e6c7b335dfdfcd5b3960d5af2708"
        "7f3672c1ab270fb5291f9587316065c003ed4ee5b1063d5007"
    ),
)


@pytest.mark.parametrize(("asked", "said"), [(_C3, _C5), (_C4, _C6)], ids=["plain", "huffman"])
def test_published_examples(
    watch: Watch, place: Netns, talks: Dialogues, asked: tuple[str, ...], said: tuple[str, ...]
) -> None:
    port = talks.listen()
    lines: list[Line] = [(CLIENT, PREFACE), (SERVER, frame(4, 0, 0, b""))]
    for number, (one, other) in enumerate(zip(asked, said, strict=True)):
        stream = 2 * number + 1
        for who, block in ((CLIENT, one), (SERVER, other)):
            lines.append((who, frame(HEADERS, END_STREAM | END_HEADERS, stream, bytes.fromhex(block))))
    talks.once(port, lines)
    assert counted(watch, place, port) == http2(GET_302=1, GET_307=1, GET_200=1)
    nothing_lost(watch)


def talk_at_random(rng: random.Random, spoken: Spoken) -> Counter[tuple[str, str, int]]:
    """Requests of all kinds, some answered later than others."""
    wanted, waiting = Counter[tuple[str, str, int]](), []
    for _ in range(rng.randrange(1, 13)):
        more = [(f"x-{rng.randrange(30)}", "v" * rng.randrange(90)) for _ in range(rng.randrange(5))]
        method = rng.choice(["GET", "POST", "PUT", "OPTIONS"])
        if rng.random() < 0.4:
            waiting.append((spoken.ask("POST", "/a.B/C", *GRPC, *more, body=b"x" * rng.randrange(1, 99)), ""))
        else:
            waiting.append((spoken.ask(method, "/", *more, body=b"x" * rng.randrange(99)), method))
    rng.shuffle(waiting)
    for stream, method in waiting:
        more = [(f"y-{rng.randrange(30)}", "w" * rng.randrange(90)) for _ in range(rng.randrange(5))]
        body = b"z" * rng.randrange(300)
        if method:
            status = rng.choice([200, 204, 302, 404, 451, 500, 503])
            spoken.answer(stream, status, *more, body=body)
            wanted["http2", method, status] += 1
        else:
            code = rng.randrange(17)
            spoken.answer(stream, 200, GRPC[0], *more, body=body, trailers=[("grpc-status", str(code))])
            wanted["grpc", "", code + 1] += 1
    return wanted


@pytest.mark.parametrize("seed", range(8))
def test_any_conversation(watch: Watch, place: Netns, talks: Dialogues, seed: int) -> None:
    """Random requests, multiplexed, in random pieces."""
    rng, port = random.Random(seed), talks.listen()
    total = Counter[tuple[str, str, int]]()
    for _ in range(5):
        spoken = Spoken(rng.random() < 0.5)
        begun = spoken.lines()
        for _ in range(5):
            total += talk_at_random(rng, spoken)
        pieces = [(who, piece) for who, text in spoken.lines() for piece in cut(rng, text)]
        talks.once(port, [*begun, *pieces])
    assert counted(watch, place, port) == total
    nothing_lost(watch)


def test_what_only_begins_like_it(watch: Watch, place: Netns, talks: Dialogues) -> None:
    """A server that does not speak it: no request was made."""
    port = talks.listen()
    talks.once(port, [(CLIENT, PREFACE), (SERVER, b"HTTP/1.1 400 Bad Request\r\n\r\n")])
    talks.once(port, [(SERVER, frame(4, 0, 0, b"")), (CLIENT, b"GET / HTTP/1.1\r\n\r\n")])
    talks.once(port, [(CLIENT, PREFACE + b"\xff" * 500), (SERVER, b"\xff" * 500)])
    assert counted(watch, place, port) == {}


@pytest.mark.parametrize("greets", [False, True])
def test_without_its_program(place: Netns, talks: Dialogues, greets: bool) -> None:
    """Where the kernel refuses it, turns are counted, whoever speaks first."""
    port, spoken = talks.listen(), Spoken(greets)
    begun = spoken.lines()
    with asking(place, nat="off") as watch:
        bpf.map_delete(watch.kernel.maps.fd("readers"), struct.pack("<I", PROTOCOLS.index("http2")))
        turns = [(CLIENT, b"\0\0\4\x08"), (SERVER, b"\0\0\4\x08")] * 7
        talks.once(port, [*begun, *turns])
        assert watch.requests(place, SOURCE, port)["tcp", "", 0] >= 7
        assert watch.requests(place, DESTINATION, port)["tcp", "", 0] >= 7


def test_one_of_its_programs_is_refused(
    place: Netns, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The others are not loaded then: without it they would read connections and count nothing."""
    monkeypatch.setenv("WEIR_CACHE_DIR", str(tmp_path))
    with asking(place, nat="off"):
        pass
    (kept,) = tmp_path.glob("*.programs")
    built = Compiled.from_bytes(kept.read_bytes())
    no_result = Program(bytes.fromhex("9500000000000000"), [])  # exit, without one
    kept.write_bytes(replace(built, programs={**built.programs, "http2_results": no_result}).to_bytes())
    with pytest.raises(AssertionError) as down, asking(place, nat="off"):
        pass
    facts = ast.literal_eval(str(down.value).split("\n")[0])
    assert [plane for plane, why in facts["planes"].items() if why] == ["http2"]
    assert "http2_messages" not in facts["verified"]


def test_what_becomes_unreadable(place: Netns, talks: Dialogues) -> None:
    """A request, and behind it in its segment what is no HTTP/2: nobody knows whether it was answered."""
    port, head = talks.listen(), frame(HEADERS, END_STREAM | END_HEADERS, 1, bytes.fromhex(_C3[0]))
    with asking(place, nat="off") as watch:
        for _ in range(131):
            number = talks.connect(port)
            talks.say(number, [(CLIENT, PREFACE + head + frame(0, 0, 0, b"no stream has the number 0"))])
            talks.close(number, (SERVER, CLIENT))
        assert counted(watch, place, port) == {}
        assert (
            watch.drain().events["request_unparsed"] == 2 * 2 * 131
        )  # the half, and the request, at either end


def test_older_connections(place: Netns, talks: Dialogues) -> None:
    """Those that were there before Weir: right from the first segment that begins with a request's headers.

    What their headers refer to is not known: of gRPC the call is counted, its code is not.
    """
    port, other = talks.listen(), talks.listen()
    web, rpc = Spoken(), Spoken()
    for _ in range(3):
        web.answer(web.ask("GET", "/old", ("x-old", "1")), 201, ("server", "old"), body=b"x")
        rpc.call(0)
    numbers = talks.connect(port), talks.connect(other)
    for number, spoken in zip(numbers, (web, rpc), strict=True):
        talks.say(number, spoken.lines())
    with asking(place, nat="off") as young:
        for _ in range(7):
            web.answer(web.ask("GET", "/old", ("x-old", "1")), 200, ("server", "old"), body=b"x")
            web.answer(web.ask("GET", "/new", ("x-old", "2")), 404, ("server", "old"), body=b"x")
            rpc.call(0)
        for _ in range(5):
            rpc.call(14)  # a new code, of a name that is not known
        for number, spoken in zip(numbers, (web, rpc), strict=True):
            talks.say(number, spoken.lines())
            talks.close(number)
        assert counted(young, place, port) == http2(GET_200=7, GET_404=7)
        assert counted(young, place, other) == {("grpc", "", 18): 12}
        nothing_lost(young)


def test_loss() -> None:
    """Segments that come again, late and out of order: right, or counted as not understood."""
    rng = random.Random(0)
    with make_netns() as lossy, Dialogues(lossy) as talks, asking(lossy) as watch:
        lossy.run("ip", "link", "set", "lo", "mtu", "1500")
        lossy.run(
            "ip", "route", "replace", "local", "127.0.0.0/8", "dev", "lo", "table", "local", "rto_min", "5ms"
        )
        port = talks.listen()
        number, spoken = talks.connect(port), Spoken()
        talks.say(number, spoken.lines())
        lossy.run("nft", "-f", "-", stdin=LOSS % (port, port))
        total = Counter[tuple[str, str, int]]()
        for _ in range(29):
            total += talk_at_random(rng, spoken)
            talks.say(number, [(who, piece) for who, text in spoken.lines() for piece in cut(rng, text)])
        lossy.run("nft", "delete", "table", "inet", "weirt")
        talks.close(number)
        assert watch.tcp(lossy, None, port).retransmitted > 10
        unread = watch.drain().events["request_unparsed"]
        for role in (SOURCE, DESTINATION):
            found = watch.requests(lossy, role, port)
            known = Counter({what: n for what, n in found.items() if what != ("grpc", "", 18)})
            assert all(n <= total[what] for what, n in known.items()), (found, total)
            assert sum(total.values()) - sum(found.values()) <= unread
            assert sum(found.values()) > 0.8 * sum(total.values())
