# SPDX-License-Identifier: Apache-2.0
"""Labels of a pair: each end's own, whichever end reports."""

from __future__ import annotations

import numpy as np
import pytest

from tests.unit.synthetic import slot
from weir.aggregate.labels import Labeller, shape_of
from weir.identity.types import Ends, Owner
from weir.kernel.layout import DESTINATION, SOURCE, UDP, Array
from weir.metrics import SOURCE_SHAPE, TCP_SHAPE, UDP_SHAPE

EXTRA = (
    "source_pod",
    "destination_pod",
    "interface",
    "process",
    "source_address",
    "destination_address",
    "pod:app",
)
NEAR = Owner(
    "web", "deployment", "prod", process="nginx", pod="web-1", attribution="cgroup", labels=(("app", "a"),)
)
FAR = Owner(
    "db", "statefulset", "data", process="never", pod="db-0", attribution="address", labels=(("app", "b"),)
)


def key_of(row: Array) -> np.void:
    key: np.void = row["key"]  # type: ignore[assignment]
    return key


def labelled(role: int, local: Owner = NEAR, remote: Owner = FAR, **more: object) -> dict[str, str]:
    labeller = Labeller(EXTRA)
    row = slot("10.0.0.1", "10.0.0.2", 5432, role=role, **more)  # type: ignore[arg-type]
    found = labeller.labels(key_of(row), Ends(local, remote, "data/db", "prod/net", "net1"))
    return dict(zip(labeller.names, found, strict=True))


COMMON = {
    "destination_service": "data/db",
    "destination_port": "5432",
    "network_name": "prod/net",
    "interface": "net1",
    "process": "nginx",
    "attribution": "address",
}


def test_who_asks_reports() -> None:
    assert labelled(SOURCE) == COMMON | {
        "reporter": "source",
        "source_namespace": "prod",
        "source_workload": "web",
        "destination_namespace": "data",
        "destination_workload": "db",
        "source_pod": "web-1",
        "destination_pod": "db-0",
        "source_address": "10.0.0.1",
        "destination_address": "10.0.0.2",
        "source_label_app": "a",
        "destination_label_app": "b",
    }


def test_who_is_asked_reports() -> None:
    """The other way round: the local end is the destination."""
    assert labelled(DESTINATION) == COMMON | {
        "reporter": "destination",
        "source_namespace": "data",
        "source_workload": "db",
        "destination_namespace": "prod",
        "destination_workload": "web",
        "source_pod": "db-0",
        "destination_pod": "web-1",
        "source_address": "10.0.0.2",
        "destination_address": "10.0.0.1",
        "source_label_app": "b",
        "destination_label_app": "a",
    }


@pytest.mark.parametrize(
    ("bits", "address"), [(128, "10.0.0.2"), (120, "10.0.0.2/24"), (96, "10.0.0.2/0"), (0, "any")]
)
def test_a_folded_address_is_a_network(bits: int, address: str) -> None:
    assert labelled(SOURCE, bits=bits)["destination_address"] == address


def test_without_a_name_there_is_no_attribution() -> None:
    assert labelled(SOURCE, local=Owner("", "none"))["attribution"] == "none"


def test_what_stands_for_many() -> None:
    labeller = Labeller(EXTRA)
    row = slot("10.0.0.1", "10.0.0.2", 5432, role=DESTINATION)
    shared = labeller.shared(labeller.labels(key_of(row), Ends(NEAR, FAR)), "other")
    found = dict(zip(labeller.names, shared, strict=True))
    assert {name: value for name, value in found.items() if value} == {
        "reporter": "destination",
        "source_workload": "other",
        "destination_workload": "other",
        "attribution": "none",
    }


def test_no_port_is_no_label() -> None:
    row = slot("10.0.0.1", "10.0.0.2", 0)
    assert Labeller(()).labels(key_of(row), Ends(NEAR, FAR))[6] == ""


@pytest.mark.parametrize(
    ("role", "proto", "shape"),
    [
        (SOURCE, 6, TCP_SHAPE | SOURCE_SHAPE),
        (DESTINATION, 6, TCP_SHAPE),
        (SOURCE, UDP, UDP_SHAPE),
        (DESTINATION, UDP, UDP_SHAPE),
    ],
)
def test_shapes(role: int, proto: int, shape: int) -> None:
    assert shape_of(key_of(slot(role=role, proto=proto))) == shape


def test_long_values_are_cut_and_counted() -> None:
    labeller = Labeller(("process",))
    found = labeller.labels(key_of(slot()), Ends(Owner("x" * 201, "unit"), Owner("y" * 200, "unit")))
    assert (len(found[2]), len(found[4]), labeller.truncated) == (200, 200, 1)
