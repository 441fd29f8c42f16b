# SPDX-License-Identifier: Apache-2.0
"""Of edges, pods and rows that are gone nothing is kept: memory does not grow with what has been."""

from __future__ import annotations

from pathlib import Path
from types import FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np

from tests.unit.synthetic import Clock, client, drain, identity, request, server, slot
from weir.aggregate import Aggregator
from weir.identity.cache import Cache
from weir.identity.cidrs import packed
from weir.identity.kube.index import ClusterIndex
from weir.identity.kube.pods import Node, Pod, Service, Slice, pack

_LEAVES = (str, bytes, int, float, np.ndarray, type, FunctionType, MethodType, ModuleType, Cache, type(None))


def held(thing: Any, seen: set[int] | None = None) -> int:
    """Elements of all dicts, lists and sets that an object leads to; of caches, which have a bound, none."""
    seen = set() if seen is None else seen
    if isinstance(thing, _LEAVES) or id(thing) in seen:
        return 0
    seen.add(id(thing))
    if isinstance(thing, dict):
        return len(thing) + sum(held(one, seen) for pair in thing.items() for one in pair)
    if isinstance(thing, (list, set, frozenset, tuple)):
        return len(thing) + sum(held(one, seen) for one in thing)
    own = vars(thing) if hasattr(thing, "__dict__") else {}
    return sum(held(one, seen) for one in own.values())


def edges(turn: int) -> dict[int, Any]:
    """Both ends of connections, far ends of all kinds, edges that share a pair."""
    rows: dict[int, Any] = {}
    for n in range(12):
        more = {"generation": turn, "sent_bytes": 7}
        rows[3 * n + 1] = client(f"c{turn}-{n % 3}", port=7000 + n, **more)
        rows[3 * n + 2] = server(f"s{turn}-{n % 3}", port=7000 + n, **more)
        rows[3 * n + 3] = slot(f"10.0.{turn}.{n}", f"203.0.113.{n}", comm=f"x{turn}", **more)
    return rows


def test_of_edges_and_rows(tmp_path: Path) -> None:
    aggregator = Aggregator(identity(tmp_path))
    sizes = []
    for turn in range(5):
        rows = edges(turn)
        asked = [request(1 + n, status=200 + n, seconds=[0.1], generation=turn, row=n + 1) for n in range(7)]
        aggregator.update(drain(rows, asked))
        del rows[1], rows[2]
        aggregator.update(drain(rows, asked[2:]))
        aggregator.update(drain({}))
        sizes.append(held(aggregator))
    assert sizes[1:] == sizes[1:2] * 4, "the first turn makes what is used again"


def test_of_objects_of_the_cluster() -> None:
    clock = Clock()
    index = ClusterIndex(clock, wall=lambda: clock.now + 1.7e9)
    sizes = []
    for turn in range(4):
        uids = [f"{turn:08x}-0000-0000-0000-{n:012x}" for n in range(9)]
        for n, uid in enumerate(uids):
            at = packed(f"10.{turn}.0.{n}")
            kind = ("Job", "Deployment", "Pod")[n % 3]
            index.put_pod(Pod(uid, "prod", f"p{n}", "node-a", f"w{n}", kind,
                              addresses=(("", at), ("prod/net", at)), ports=((80 + n, 1),)))  # fmt: skip
            index.put_service(
                Service(f"s{uid}", "prod", f"svc{n}", (packed(f"10.96.{turn}.{n}"),), ((6, 30000 + n),))
            )
            index.put_slice(
                Slice(f"e{uid}", "prod", f"svc{n}", pack(uids), ((6, 80),), (packed(f"192.0.2.{n}"),))
            )
            index.put_node(Node(f"n{uid}", f"node-{n}", (packed(f"172.16.{turn}.{n}"),)))
        index.take_changes()
        for uid in uids:
            index.delete_pod(uid)
            index.delete_service(f"s{uid}")
            index.delete_slice(f"e{uid}")
            index.delete_node(f"n{uid}")
        clock.now += 1e6
        index.expire()
        index.take_changes()
        index.take_lost()
        assert set(index.sizes().values()) == {0}
        assert not index.marked_ports()
        sizes.append(held(index))
    assert sizes[1:] == sizes[1:2] * 3, "names that pods share are numbered once, and kept"
