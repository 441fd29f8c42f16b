# SPDX-License-Identifier: Apache-2.0
"""`weir tap` without a kernel: what is shown of a request's text, how many, what is said of the others."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest

from weir.errors import ConfigError
from weir.kernel.layout import PROTOCOLS, SLOT, SOURCE, TAPPED, UNANSWERED, USED, Array
from weir.views.tap import Names, Wanted, path_of, print_tap


@pytest.mark.parametrize(
    ("line", "path"),
    [
        (b"GET /users/42 HTTP/1.1\r\nHost: a\r\n", "/users/42"),
        (b"GET /users/42?token=secret HTTP/1.1\r\n", "/users/42"),
        (b"GET /users/42#part HTTP/1.1\r\n", "/users/42"),
        (b"GET /users/42?token=cut", "/users/42"),
        (b"GET /users/4", "/users/4…"),
        (b"GET http://me:secret@shop.example/a/b?c HTTP/1.1\r\n", "/a/b"),
        (b"GET http://me:secret@shop.example HTTP/1.1\r\n", "/"),
        (b"GET http://me:secret@shop.exa", "…"),
        (b"GET /to?url=http://a/b HTTP/1.1\r\n", "/to"),
        (b"CONNECT me:secret@db.example:5432 HTTP/1.1\r\n", "db.example:5432"),
        (b"OPTIONS * HTTP/1.1\r\n", "*"),
        (b"GET /\xff\x1b[2J HTTP/1.1\r\n", "/\N{REPLACEMENT CHARACTER}\x1b[2J"),
        (b"GET /old\r\nAuthorization: secret\r\n", "/old"),
        (b"", ""),
        (b"\0GET / HTTP/1.1", ""),
    ],
)
def test_path(line: bytes, path: str) -> None:
    assert path_of(line.ljust(128, b"\0")) == path


class Kernel:
    """A kernel side where ``pace`` requests end between two looks."""

    def __init__(self, pace: int, **fields: object) -> None:
        self.pace, self.fields = pace, fields
        self.wanted = self.told = self.lost = 0
        self.asking = self.held = False
        self.ready = np.zeros(0, TAPPED)

    def ask(self, requests: int, monotonic_ns: int) -> None:
        self.wanted, self.asking = requests, monotonic_ns > 0

    def left(self) -> int:
        return self.wanted

    def read(self) -> Array:
        ready, self.ready = self.ready, self.ready[:0]
        return ready

    def end(self) -> None:
        """The requests of a while end."""
        now = min(self.pace, self.wanted)
        self.wanted -= now
        self.told += now
        self.lost += self.pace - now
        told = np.zeros(now, TAPPED)
        told["key"]["protocol"] = PROTOCOLS.index("http")
        told["key"]["method"], told["key"]["status"] = 2, 200
        told["key"]["slot"], told["key"]["generation"] = 1, 7
        for name, value in self.fields.items():
            (told if name in (TAPPED.names or ()) else told["key"])[name] = value
        self.ready = np.concatenate((self.ready, told))

    def skipped(self) -> int:
        return self.lost

    def held_back(self) -> bool:
        return self.held

    def stop(self) -> None:
        self.asking = False


def slots() -> Array:
    made = np.zeros(2, SLOT)
    made["state"][1], made["generation"][1] = USED, 7
    made["key"]["role"][1], made["key"]["port"][1], made["key"]["comm"][1] = SOURCE, 80, b"curl"
    made["key"]["raddr_bits"][1] = 128
    made["key"]["raddr"][1] = [0] * 10 + [255, 255, 10, 0, 0, 7]
    return made


def tap(kernel: Kernel, **wanted: object) -> tuple[list[str], str]:
    """Lines, and what is said of the others; a step is a tenth of a second."""
    now = [0.0]
    out, err = io.StringIO(), io.StringIO()
    names = Names(slots(), list, clock=lambda: now[0])

    def sleep(seconds: float) -> None:
        now[0] += seconds
        kernel.end()

    print_tap(kernel, names, Wanted(**wanted), out, err, lambda: now[0], sleep)  # type: ignore[arg-type]
    assert not kernel.asking
    return out.getvalue().splitlines(), err.getvalue().splitlines()[-1]


@pytest.mark.parametrize(("rate", "pace"), [(100, 1000), (7, 5), (1, 13), (1000, 1)])
def test_rate(rate: int, pace: int) -> None:
    kernel = Kernel(pace)
    lines, said = tap(kernel, rate=rate, seconds=20.05)
    asked = 201 * pace
    assert len(lines) == kernel.told == pytest.approx(min(20 * rate, asked), abs=max(2, rate / 5))
    others = asked - kernel.told
    wanted = f"tap: {kernel.told:,} shown"
    assert said == (
        wanted + f", {others:,} not looked at (more than --rate {rate} a second)" if others else wanted
    )


def test_count() -> None:
    """What was told beyond it is said, too."""
    lines, said = tap(Kernel(3), count=7)
    assert len(lines) == 7
    assert said == "tap: 7 shown, 2 came last and are not shown"


def test_it_is_ended_between_two_looks() -> None:
    kernel, out, err = Kernel(3), io.StringIO(), io.StringIO()

    def ended(_: float) -> None:
        kernel.end()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        print_tap(kernel, Names(slots(), list), Wanted(), out, err, sleep=ended)
    assert (out.getvalue(), err.getvalue()) == ("", "tap: 0 shown, 3 came last and are not shown\n")


def test_line_of_a_pair_without_names() -> None:
    line = np.frombuffer(b"GET /a?b HTTP/1.1".ljust(128, b"\0"), np.uint8)
    (shown,), _ = tap(Kernel(1, line=line, took_ns=1_234_000, ended_ns=10**9), count=1)
    assert shown.split()[1:] == ["out", "http", "GET", "200", "1.23", "ms", "curl", "→", "10.0.0.7:80", "/a"]


def test_json() -> None:
    (shown,), _ = tap(Kernel(1, took_ns=UNANSWERED, status=0), count=1, form="json")
    row = json.loads(shown)
    assert (row["seconds"], row["status"], row["outcome"], row["path"]) == (None, "", "failure", "")


def test_failures_only() -> None:
    assert tap(Kernel(1), failures=True, seconds=1.0)[0] == []
    assert len(tap(Kernel(1, status=503), failures=True, count=3)[0]) == 3


def test_a_filter_that_cannot_be_asks_for_nothing() -> None:
    kernel = Kernel(1)
    with pytest.raises(ConfigError, match="port:x"):
        tap(kernel, filter_text="port:x")
    assert not kernel.asking
