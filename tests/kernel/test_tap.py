# SPDX-License-Identifier: Apache-2.0
"""`weir tap` as its users have it: every request of a real conversation, or its number; nothing private."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from tests.kernel.agents import ASKING, Agent, command, environment, until, weir
from tests.kernel.peers.dialogue import CLIENT, SERVER, Dialogues
from tests.kernel.peers.http_text import answer, get
from tests.kernel.peers.netns import Netns
from weir.kernel import bpf
from weir.kernel.layout import TAP
from weir.pipeline import loaded_side

PORT = 8080


@contextmanager
def tapping(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        command("tap", *arguments), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=environment(**ASKING), cwd="/",
    )  # fmt: skip
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def asking(instance: str) -> bool:
    """Whether the kernel is to tell of requests now."""
    with loaded_side(instance) as (_, side):
        told = np.frombuffer(bpf.map_lookup(side.maps.fd("tap"), bytes(4), TAP.itemsize), TAP)
        return int(told["until_ns"][0]) > time.monotonic_ns()


def end(process: subprocess.Popen[str]) -> tuple[list[dict[str, object]], str]:
    """End it: requests, and the last thing it said. (A shell's background jobs ignore what Ctrl-C sends.)"""
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 0, err
    return [json.loads(line) for line in out.splitlines()], err.splitlines()[-1]


def test_every_request_of_an_agent(instance: str, netns: Netns) -> None:
    """Both ends tell each one, with names, and without query, headers and bodies."""
    secret = "s3cr3t"
    with Dialogues(netns) as talks, Agent(instance, (netns,), env=ASKING).ready() as agent:
        talks.listen(address="127.0.0.1", port=PORT)
        number = talks.connect(PORT, "127.0.0.1")
        talks.say(number, [(CLIENT, get("/first")), (SERVER, answer(200, b"x"))])
        agent.fresh()  # so that the pair has its names
        with tapping("--agent", agent.url, "--instance", instance, "--json", "--rate", "1000") as process:
            until(lambda: asking(instance))
            for at in range(13):
                said = get(f"/users/{at}?token={secret}", "GET", b"", f"Authorization: Bearer {secret}")
                talks.say(number, [(CLIENT, said), (SERVER, answer(200 + at, secret.encode()))])
            talks.say(number, [(CLIENT, get("/never", method="POST"))])
            talks.close(number)
            time.sleep(0.5)
            told, said_last = end(process)
        assert secret not in json.dumps(told)
        assert said_last == "tap: 28 shown"
        for direction in ("in", "out"):
            mine = [one for one in told if one["direction"] == direction]
            assert {(one["method"], one["path"], one["status"]) for one in mine} == {
                *(("GET", f"/users/{at}", str(200 + at)) for at in range(13)), ("POST", "/never", ""),
            }  # fmt: skip
            assert {(one["source"], one["destination"], one["destination_port"]) for one in mine} == {
                ("python", "python", PORT)
            }
            assert [one["seconds"] is None for one in mine].count(True) == 1
            assert Counter(one["outcome"] for one in mine) == {"success": 13, "failure": 1}
        assert not asking(instance)
        # a second one, and one that is killed
        with tapping("--agent", agent.url, "--instance", instance) as process:
            until(lambda: asking(instance))
            other = weir("tap", "--agent", agent.url, "--instance", instance, "--seconds", "1")
            assert other.returncode == 5
            assert re.fullmatch(
                r"weir: weir tap already runs for instance .* \(pid \d+\); .*\n", other.stderr
            )
            process.kill()
            process.wait()
            until(lambda: not asking(instance))


def test_more_than_is_looked_at(instance: str, netns: Netns) -> None:
    """What is not shown is counted, exactly."""
    with Dialogues(netns) as talks, Agent(instance, (netns,), env=ASKING).ready() as agent:
        talks.listen(address="127.0.0.1", port=PORT)
        number = talks.connect(PORT, "127.0.0.1")
        with tapping("--agent", agent.url, "--instance", instance, "--rate", "20", "--json") as process:
            until(lambda: asking(instance))
            for _ in range(7):
                talks.say(number, [(CLIENT, get()), (SERVER, answer(200, b"x"))] * 211)
                time.sleep(0.2)
            told, said = end(process)
        talks.close(number)
    found = re.fullmatch(r"tap: (\S+) shown, (\S+) not looked at \(more than --rate 20 a second\)", said)
    assert found, said
    shown, skipped = (int(number.replace(",", "")) for number in found.groups())
    assert shown == len(told)
    assert shown + skipped == 2 * 7 * 211
    assert 14 <= shown <= 200


def test_alone(netns: Netns) -> None:
    """Of a host without an agent; every protocol that is read, and turns of those that are not."""
    stop = threading.Event()

    def ask() -> None:
        while not stop.is_set():
            talks.once(PORT, [(CLIENT, get("/a")), (SERVER, answer(200, b"x"))], "127.0.0.1")
            talks.once(PORT, [(CLIENT, b"*1\r\n$4\r\nPING\r\n"), (SERVER, b"+PONG\r\n")], "127.0.0.1")
            talks.once(PORT, [(CLIENT, b"hello"), (SERVER, b"you")], "127.0.0.1")

    with Dialogues(netns) as talks:
        talks.listen(address="127.0.0.1", port=PORT)
        asker = threading.Thread(target=ask)
        asker.start()
        said = weir("tap", "--alone", "--netns", netns.name, "--count", "60", "--rate", "1000", env=ASKING)
        stop.set()
        asker.join()
    assert said.returncode == 0
    lines = [re.sub(r" +", " ", line).split(" ", 1)[1] for line in said.stdout.splitlines()]
    assert len(lines) == 60
    # whose edge is new has no name for a moment
    plain = {
        re.sub(r" [\d.]+ (µs|ms) \S+ → \S+(:\d+)", r"\2", line.replace("127.0.0.1:", "python:"))
        for line in lines
    }
    assert plain == {
        f"{direction} {what}" for direction in ("in", "out")
        for what in (f"http GET 200:{PORT} /a", f"redis PING OK:{PORT}", f"tcp - -:{PORT}")
    }  # fmt: skip


def test_refusals(instance: str, netns: Netns) -> None:
    with Agent(instance, (netns,)).ready() as agent:
        none = weir("tap", "--agent", agent.url, "--instance", instance)
        assert (none.returncode, none.stderr) == (
            4,
            "weir: tap: requests are not counted here (--no-requests)\n",
        )
        elsewhere = weir("tap", "--agent", agent.url, "--instance", "weirt-nobody")
        assert elsewhere.returncode == 4
        assert "nothing is loaded for instance 'weirt-nobody'" in elsewhere.stderr
    wrong = weir("tap", "--filter", "port:x")
    assert (wrong.returncode, wrong.stdout) == (2, "")
