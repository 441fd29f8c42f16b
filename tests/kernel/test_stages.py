# SPDX-License-Identifier: Apache-2.0
"""Every function of the stages fails once: the next step has everything, to the byte, by the right names."""

from __future__ import annotations

import inspect
import random
import threading
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from tests.kernel.agents import pins
from tests.kernel.peers.dialogue import CLIENT, SERVER, Dialogues
from tests.kernel.peers.http_text import answer, get
from tests.kernel.peers.netns import Netns
from weir.aggregate import Snapshot, aggregator, bases, compact, labels, pairs, requests, sums
from weir.config import Settings
from weir.flows import drain, retire, rows, tracker
from weir.identity import cache, cgroups, cidrs, index, local, process, remote, runtimes, sriov
from weir.kernel import maps, side
from weir.pipeline import Pipeline, opened

_STAGES: tuple[ModuleType, ...] = (
    drain, tracker, retire, rows, aggregator, bases, compact, labels, pairs, requests, sums,
    cache, cgroups, cidrs, index, local, process, remote, runtimes, sriov,
)  # fmt: skip
#: Of the kernel side, what a step calls.
_OF_THE_KERNEL = ("read_counters", "fold_slot", "fold_requests", "programs", "fill", "planes", "look_again")
PORT = 8080
SENT, RECEIVED = "tcp_sent_bytes", "tcp_received_bytes"
ASKED, ANSWERED = get(), answer(200, b"x" * 211)


#: Made to be called by any thread: what they touch is not theirs.
_SHARED = {"KernelSide", "Maps"}


class PlantedError(Exception):
    """Nobody expects it."""


def functions() -> list[tuple[Any, str]]:
    """Every function and method of the stages, with where it is."""
    found: list[tuple[Any, str]] = [(side.KernelSide, name) for name in _OF_THE_KERNEL]
    found += [(maps.Maps, name) for name in ("events", "tracked", "forget_edge", "forget_requests")]
    for module in _STAGES:
        for name, one in vars(module).items():
            if getattr(one, "__module__", "") != module.__name__:
                continue
            if inspect.isfunction(one):
                found.append((module, name))
            elif inspect.isclass(one) and not getattr(one, "_is_protocol", False):
                found += [(one, own) for own, what in vars(one).items()
                          if inspect.isfunction(what) and what.__module__ == module.__name__]  # fmt: skip
    return found


class House:
    """A pipeline of its own, and a server with so many addresses that each visit makes one more edge."""

    def __init__(self, pipeline: Pipeline, talks: Dialogues) -> None:
        self.pipeline, self._talks, self.times = pipeline, talks, 0
        talks.listen(address="127.0.0.1", port=PORT)

    def visit(self) -> None:
        """The first address, whose edge stays, and one more, whose edge will be idle and fold into that."""
        address = f"127.0.{1 + self.times // 200}.{1 + self.times % 200}"
        self._talks.listen(address=address, port=PORT)
        for one in ("127.0.0.1", address):
            self._talks.once(PORT, [(CLIENT, ASKED), (SERVER, ANSWERED)], one)
        self.times += 2


def by_labels(snapshot: Snapshot) -> dict[tuple[str, ...], tuple[int, ...]]:
    return {pair: tuple(map(int, row)) for pair, row in zip(snapshot.pairs, snapshot.values, strict=True)}


@pytest.fixture
def house(instance: str, netns: Netns) -> Iterator[House]:
    settings = Settings(instance=instance, netns=(netns.name,), kubernetes=False, requests=True, idle=1.0,
                        slots=4096)  # fmt: skip
    with Dialogues(netns) as talks, opened(settings, temporary=True) as pipeline:
        yield House(pipeline, talks)
    assert not pins(instance).exists()


def test_each_function_of_the_stages_fails_once(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    failed = 0
    for where, name in functions():
        original = inspect.getattr_static(where, name)
        plain = original.__func__ if isinstance(original, (classmethod, staticmethod)) else original
        left = [random.choice((1, 1, 2))]

        def planted(*args: Any, _plain: Any = plain, _left: list[int] = left, **named: Any) -> Any:
            _left[0] -= 1
            if not _left[0]:
                raise PlantedError
            return _plain(*args, **named)

        wrapped = type(original)(planted) if plain is not original else planted
        house.visit()
        with monkeypatch.context() as patch:
            patch.setattr(where, name, wrapped)
            for _ in range(2):
                try:
                    house.pipeline.step()
                except PlantedError:
                    failed += 1
                    break
                house.visit()
        told = f"after {getattr(where, '__qualname__', where.__name__)}.{name}"
        snapshot = house.pipeline.step()
        rows = snapshot.edges
        for role, sent, received in ((1, ASKED, ANSWERED), (2, ANSWERED, ASKED)):
            mine = rows[rows["key"]["role"] == role]
            assert int(mine["opened"].sum()) == house.times, told
            assert int(mine["sent_bytes"].sum()) == house.times * len(sent), told
            assert int(mine["received_bytes"].sum()) == house.times * len(received), told
        assert int(snapshot.column(SENT).sum()) == 2 * house.times * len(ASKED), told
        assert int(snapshot.column(RECEIVED).sum()) == 2 * house.times * len(ANSWERED), told
        assert int(snapshot.requests.values.sum()) == 2 * house.times, told
    assert failed > 60, "most of them were called"
    assert house.pipeline._retirer.retired > 10, "edges were given back"
    anew = Pipeline(house.pipeline.kernel, house.pipeline._settings, house.pipeline._cgroup2)
    mine, other = by_labels(house.pipeline.step()), by_labels(anew.step())
    assert mine == other
    assert np.array_equal(np.sort(list(mine)), np.sort(list(other)))


class Crowd:
    """Tells when two threads are in methods of one object at once."""

    def __init__(self) -> None:
        self._inside: dict[int, tuple[int, int]] = {}  # object -> thread, depth
        self._lock = threading.Lock()
        self.met: set[str] = set()
        self.threads: set[str] = set()

    def watched(self, plain: Callable[..., Any], name: str) -> Callable[..., Any]:
        def run(*args: Any, **named: Any) -> Any:
            key, me = id(args[0]), threading.get_ident()
            with self._lock:
                self.threads.add(threading.current_thread().name)
                who, depth = self._inside.get(key, (me, 0))
                if who != me:
                    self.met.add(name)
                self._inside[key] = me, depth + 1
            try:
                return plain(*args, **named)
            finally:
                with self._lock:
                    _, depth = self._inside.get(key, (me, 1))
                    if depth > 1:
                        self._inside[key] = me, depth - 1
                    else:
                        self._inside.pop(key, None)

        return run


def test_one_thread_at_a_time(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever reads what the writer writes waits for it: steps, live connections, edges that are cut off."""
    crowd = Crowd()
    for where, name in functions():
        plain = inspect.getattr_static(where, name)
        if inspect.isclass(where) and inspect.isfunction(plain) and where.__name__ not in _SHARED:
            monkeypatch.setattr(where, name, crowd.watched(plain, f"{where.__name__}.{name}"))
    house.pipeline._begin()
    over = threading.Event()

    def again(call: Callable[[], object]) -> None:
        while not over.is_set():
            call()

    calls: list[Callable[[], object]] = [
        house.pipeline.step,
        house.pipeline.connections,
        house.pipeline.cut_lost,
    ]
    threads = [threading.Thread(target=again, args=(call,)) for call in (*calls, *calls[:2])]
    for thread in threads:
        thread.start()
    for _ in range(31):
        house.visit()
    over.set()
    for thread in threads:
        thread.join()
    assert len(crowd.threads) >= 4, "they were all at work"
    assert not crowd.met
