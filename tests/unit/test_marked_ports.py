# SPDX-License-Identifier: Apache-2.0
"""Ports in pods' annotations: whatever users write there."""

from __future__ import annotations

import pytest

from weir.identity.kube.pods import Pod
from weir.identity.kube.ports import OPAQUE, SKIP, MarkedPorts, ports_of


@pytest.mark.parametrize(
    ("opaque", "skip", "ports", "bad"),
    [
        ("", "", (), False),
        ("5432", "", ((5432, OPAQUE),), False),
        (" 5432 ,6379", "80", ((5432, OPAQUE), (6379, OPAQUE), (80, SKIP)), False),
        ("80", "80", ((80, SKIP),), False),
        ("0,65536,-1,x,,1e3,٣", "65535", ((65535, SKIP),), True),
        (",".join(map(str, range(1, 101))), "", tuple((n, OPAQUE) for n in range(1, 65)), True),
    ],
)
def test_ports(opaque: str, skip: str, ports: tuple[tuple[int, int], ...], bad: bool) -> None:
    annotations = {"weir/opaque-ports": opaque, "weir/skip-ports": skip}
    assert ports_of(annotations) == (ports, bad)
    assert ports_of(None) == ((), False)


def test_marks() -> None:
    one, two = bytes(15) + b"\1", bytes(15) + b"\2"
    marked = MarkedPorts()
    pod = Pod("u", "ns", "a", "n", "a", "Pod", addresses=(("", one), ("net", two)), ports=((80, OPAQUE),))
    marked.put(pod)
    assert marked.marks() == {(one, 80): OPAQUE, (two, 80): OPAQUE}
    marked.put(Pod("u", "ns", "a", "n", "a", "Pod", addresses=(("", one),)))
    assert marked.marks() == {}
    marked.put(pod)
    marked.drop("u")
    assert marked.marks() == {}
