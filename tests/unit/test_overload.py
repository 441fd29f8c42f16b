# SPDX-License-Identifier: Apache-2.0
"""What the agent does without, and when: caps of CPU and memory against a process that is made up."""

from __future__ import annotations

import itertools
import logging
from dataclasses import dataclass, field

import pytest

from weir.overload import PLANES, Caps, Overload

MB = 2**20


@dataclass
class Process:
    """Uses so many cores and bytes; less by each plane that is taken away."""

    cores: float = 0.0
    bytes: int = 0
    saves: float = 0.0
    now: float = 0.0
    spent: float = 0.0
    taken: tuple[str, ...] = ()
    history: list[tuple[float, tuple[str, ...]]] = field(default_factory=list)

    def run(self, overload: Overload, seconds: float, step: float = 1.0) -> None:
        """Time passes, with a look each step."""
        for _ in range(int(seconds / step)):
            self.now += step
            self.spent += step * max(0.0, self.cores - self.saves * len(self.taken))
            before, self.taken = self.taken, overload.look()
            if before != self.taken:
                self.history.append((self.now, self.taken))


def watched(process: Process, cpu: float = 0.0, memory: int = 0) -> Overload:
    return Overload(Caps(cpu, memory), 1.0, clock=lambda: process.now, cpu=lambda: process.spent,
                    memory=lambda: process.bytes)  # fmt: skip


def test_without_caps_nothing_is_taken() -> None:
    process = Process(cores=64.0, bytes=2**40)
    process.run(watched(process), 1000)
    assert not process.history


def test_one_plane_after_the_other_in_their_order() -> None:
    process = Process(cores=0.5)
    process.run(watched(process, cpu=0.1), 60)
    assert [taken for _, taken in process.history] == [PLANES[: n + 1] for n in range(4)]
    assert [at for at, _ in process.history] == [5, 10, 15, 20]


def test_no_more_than_is_needed() -> None:
    process = Process(cores=0.13, saves=0.02)
    process.run(watched(process, cpu=0.1), 60)
    assert process.taken == ("tap", "requests")


def test_a_peak_shorter_than_the_window_takes_nothing() -> None:
    process = Process(cores=0.0)
    overload = watched(process, cpu=0.3)
    process.run(overload, 10)
    process.cores = 1.0
    process.run(overload, 1)
    process.cores = 0.0
    process.run(overload, 60)
    assert not process.history


def test_it_comes_back_by_itself() -> None:
    process = Process(cores=0.5)
    overload = watched(process, cpu=0.1)
    process.run(overload, 30)
    assert len(process.taken) == len(PLANES)
    process.cores = 0.01
    process.run(overload, 200)
    assert not process.taken
    assert [len(taken) for _, taken in process.history] == [1, 2, 3, 4, 3, 2, 1, 0]


def test_what_is_just_below_the_cap_stays_as_it_is() -> None:
    process = Process(cores=0.115, saves=0.02)
    process.run(watched(process, cpu=0.1), 1000)
    assert process.taken == ("tap",)
    assert len(process.history) == 1, "0.095 of 0.1 is not calm"


def test_a_load_that_stays_swings_less_and_less() -> None:
    """A plane that is worth much makes room for itself: each return that was too soon doubles the wait."""
    process = Process(cores=0.15, saves=0.1)
    process.run(watched(process, cpu=0.1), 7200)
    returns = [at for at, taken in process.history if not taken]
    waits = [b - a for a, b in itertools.pairwise(returns)]
    assert waits == sorted(waits)
    assert waits[-1] >= 640, "at most once in ten minutes, at the end"
    assert len(returns) < 20


def test_the_wait_is_short_again_after_a_good_time() -> None:
    process = Process(cores=0.15, saves=0.1)
    overload = watched(process, cpu=0.1)
    process.run(overload, 7200)
    process.cores = 0.01
    process.run(overload, 7200)
    process.history.clear()
    process.cores = 0.15
    process.run(overload, 10)
    process.cores = 0.01
    process.run(overload, 60)
    assert [taken for _, taken in process.history] == [("tap",), ()]


def test_memory() -> None:
    process = Process(bytes=130 * MB)
    overload = watched(process, memory=128 * MB)
    process.run(overload, 12)
    assert len(process.taken) == 2
    process.bytes = 100 * MB
    process.run(overload, 100)
    assert not process.taken


def test_a_plane_that_nobody_uses_takes_the_next_one_with_it() -> None:
    process = Process(cores=0.5)
    overload = Overload(Caps(cpu=0.1), 1.0, clock=lambda: process.now, cpu=lambda: process.spent,
                        idle=lambda plane: plane == "tap")  # fmt: skip
    process.run(overload, 5)
    assert process.taken == ("tap", "requests")


def test_how_long() -> None:
    process = Process(cores=0.13, saves=0.04)
    overload = watched(process, cpu=0.1)
    process.run(overload, 15)
    assert overload.seconds == {"tap": 10.0, "requests": 0.0, "rtt": 0.0, "interval": 0.0}


def test_it_says_so_and_does_not_flood(caplog: pytest.LogCaptureFixture) -> None:
    process = Process(cores=0.5)
    overload = watched(process, cpu=0.1)
    with caplog.at_level(logging.INFO, logger="weir.overload"):
        process.run(overload, 3600)
    said = [(record.levelname, record.__dict__["fields"].get("plane")) for record in caplog.records]
    assert said[:4] == [("WARNING", plane) for plane in PLANES]
    assert 5 <= len(said[4:]) <= 7, "nothing is left: once in ten minutes"
    assert {level for level, _ in said[4:]} == {"ERROR"}
    assert caplog.records[0].__dict__["fields"] == {"plane": "tap", "cpu": "0.500", "max_cpu": "0.1"}
