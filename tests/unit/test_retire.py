# SPDX-License-Identifier: Apache-2.0
"""Which slots are given back, and when; the kernel side is a table in this file."""

from __future__ import annotations

from typing import cast

import numpy as np

from weir.flows.retire import Retirer
from weir.flows.types import Drain
from weir.kernel.layout import FREE, RETIRING, SLOT, USED, Array
from weir.kernel.side import KernelSide

SECOND = 10**9


class Slots:
    def __init__(self, count: int) -> None:
        self.view: Array = np.zeros(count, SLOT)
        self.count = count

    def retire(self, index: int) -> None:
        self.view["state"][index] = RETIRING


class Maps:
    def __init__(self, slots: Slots) -> None:
        self.slots = slots
        self.forgotten: list[int] = []

    def forget_edge(self, index: int) -> bool:
        self.forgotten.append(index)
        return True


class Table:
    """A kernel side of ``count`` slots, and the series that the aggregation would know."""

    def __init__(self, count: int = 100, idle: int = 10, pressed: int = 2) -> None:
        self.maps = Maps(Slots(count))
        self.now = 10_000 * SECOND
        self.busy: set[int] = set()  # slots that the kernel does not let go
        self.survivors: dict[int, int | None] = {}
        self.said: list[tuple[int, int | None]] = []
        self.retirer = Retirer(cast(KernelSide, self), idle * SECOND, pressed * SECOND)

    @property
    def slots(self) -> Array:
        return self.maps.slots.view

    def put(self, index: int, silent: float, **values: int) -> None:
        self.slots["state"][index] = USED
        self.slots["active_ns"][index] = self.now - int(silent * SECOND)
        for name, value in values.items():
            self.slots[name][index] = value

    def fold_slot(self, index: int, into: int | None) -> bool:
        if index in self.busy:
            return False
        if into is not None:
            self.slots["sent_bytes"][into] += self.slots["sent_bytes"][index]
        self.slots[index] = np.zeros((), SLOT)
        return True

    def survivor(self, slot: int) -> int | None:
        return self.survivors.get(slot)

    def folded(self, slot: int, into: int | None) -> None:
        self.said.append((slot, into))

    def step(self, seconds: float = 1.0) -> None:
        self.now += int(seconds * SECOND)
        used = np.flatnonzero(self.slots["state"] != FREE).astype(np.uint32)
        drain = Drain(self.slots[used], used, self.now, 0.0)
        self.retirer.step(drain, self)

    def states(self) -> dict[int, int]:
        return {int(i): int(self.slots["state"][i]) for i in np.flatnonzero(self.slots["state"])}


def test_two_steps_a_drain_apart() -> None:
    table = Table()
    table.put(1, silent=20, sent_bytes=23)
    table.put(2, silent=1)
    table.step()
    assert table.states() == {1: RETIRING, 2: USED}
    assert (table.maps.forgotten, table.retirer.retired) == ([1], 0)
    table.step()
    assert table.states() == {2: USED}
    assert (table.said, table.retirer.retired) == ([(1, None)], 1)


def test_counts_go_to_the_survivor() -> None:
    table = Table()
    table.put(1, silent=20, sent_bytes=23)
    table.put(2, silent=0, sent_bytes=1000)
    table.survivors = {1: 2}
    table.step()
    table.step()
    assert table.said == [(1, 2)]
    assert int(table.slots["sent_bytes"][2]) == 1023


def test_live_edges_and_the_overflow_slot_stay() -> None:
    table = Table()
    table.put(0, silent=1000)
    table.put(1, silent=1000, live=1)
    for _ in range(3):
        table.step()
    assert table.states() == {0: USED, 1: USED}
    table.slots["live"][1] = 0
    table.step()
    assert table.states() == {0: USED, 1: RETIRING}


def test_what_counts_once_more_waits_until_it_is_silent() -> None:
    """A socket that remembered its slot: one more drain without a change is needed each time."""
    table = Table()
    table.put(1, silent=20)
    table.step()
    for _ in range(3):
        table.slots["active_ns"][1] = table.now
        table.step()
        assert table.states() == {1: RETIRING}
    table.slots["live"][1] = 1
    table.step()
    table.step()
    assert table.states() == {1: RETIRING}
    table.slots["live"][1] = 0
    table.step()
    assert table.states() == {}


def test_what_an_agent_before_this_one_marked() -> None:
    table = Table()
    table.put(1, silent=20)
    table.slots["state"][1] = RETIRING
    table.step()
    assert table.states() == {1: RETIRING}  # seen for the first time
    table.step()
    assert table.states() == {}


def test_what_the_kernel_keeps_is_tried_again() -> None:
    table = Table()
    table.put(1, silent=20)
    table.busy = {1}
    for _ in range(3):
        table.step()
    assert (table.states(), table.said) == ({1: RETIRING}, [])
    table.busy = set()
    table.step()
    assert table.said == [(1, None)]


def test_sooner_when_slots_run_short() -> None:
    """Above four fifths ``pressed`` counts."""
    for used, marked in ((80, 0), (81, 80)):
        table = Table(count=100, idle=1000, pressed=2)
        table.put(1, silent=0)
        for index in range(2, 2 + used - 1):
            table.put(index, silent=3)
        table.step()
        assert list(table.states().values()).count(RETIRING) == marked


def test_oldest_first_and_not_too_many_at_once() -> None:
    table = Table(count=4000)
    order = np.random.default_rng(23).permutation(1009) + 1
    for age, index in enumerate(order.tolist()):
        table.put(index, silent=20 + age)
    table.step()
    marked = [index for index, state in table.states().items() if state == RETIRING]
    assert sorted(marked) == sorted(order[-512:].tolist())
    assert table.maps.forgotten == order[:-513:-1].tolist()
    for _ in range(3):
        table.step()
    assert table.states() == {}
    assert table.retirer.retired == 1009


def test_a_slot_that_is_used_again_is_a_new_edge() -> None:
    table = Table()
    table.put(1, silent=20)
    table.step()
    table.step()
    table.put(1, silent=0)
    for _ in range(3):
        table.slots["active_ns"][1] = table.now
        table.step()
    assert table.states() == {1: USED}


def test_a_slot_freed_behind_its_back_is_forgotten() -> None:
    """Marked, then gone (another kernel side), then there again, silent for long: marked anew, not folded."""
    table = Table()
    table.put(1, silent=20)
    table.step()
    active = int(table.slots["active_ns"][1])
    table.slots[1] = np.zeros((), SLOT)
    table.step()
    table.put(1, silent=0)
    table.slots["active_ns"][1] = active
    table.step()
    assert (table.states(), table.said) == ({1: RETIRING}, [])


def test_what_is_cut_off_is_kept_for_a_while() -> None:
    """Its last counts are to be scraped; nothing new finds it from now on."""
    table = Table(idle=1000)
    table.put(7, silent=0)
    table.retirer.cut([7, 8], table.now)
    assert (table.maps.forgotten, table.slots["state"][7], table.slots["state"][8]) == ([7], RETIRING, FREE)
    for _ in range(3):
        table.step(90)
    assert table.said == []
    table.step(31)  # 301 s: marked, and freed a drain later
    table.step()
    assert table.said == [(7, None)]
    table.put(7, silent=5000)  # used again: as any other
    table.step()
    table.step()
    table.step()
    assert table.said == [(7, None)] * 2


def test_what_is_kept_does_not_hold_up_the_others() -> None:
    table = Table(3000, idle=1000)
    kept = range(1, 601)
    for index in kept:
        table.put(index, silent=0)
    table.retirer.cut(kept, table.now)
    table.put(700, silent=5000)
    for _ in range(3):
        table.step()
    assert table.said == [(700, None)]


def test_what_is_kept_goes_first_when_slots_run_short() -> None:
    table = Table(10, idle=1000)
    for index in range(1, 10):
        table.put(index, silent=0)
    table.retirer.cut([3], table.now)
    table.step()
    table.step()
    assert table.said == [(3, None)]
