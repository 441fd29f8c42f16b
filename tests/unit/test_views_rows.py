# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import re
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_type_hints

import numpy as np
import pytest

from tests.unit.synthetic import drain, histogram, identity, server, slot
from weir.aggregate import Aggregator
from weir.identity.cidrs import packed
from weir.identity.types import EXTERNAL, Ends, Owner
from weir.kernel.layout import DESTINATION, FAILURES, RECORD, SLOT, SOURCE, TCP, UDP, Array
from weir.views import columns
from weir.views.rows import ConnectionRow, EdgeRow, connection_rows, edge_rows
from weir.views.service_names import ServiceNames

_ZERO: dict[object, Any] = {str: "", int: 0, int | None: None, float | None: None, dict[str, int]: {}}


def _blank(row: type) -> dict[str, Any]:
    return {name: _ZERO[hint] for name, hint in get_type_hints(row).items()}


def edge(id: str = "e", **values: Any) -> EdgeRow:  # noqa: A002 the field's name
    common: dict[str, Any] = {
        "workload": "curl", "kind": "process", "process": "curl", "remote_workload": "external",
        "remote_kind": "external", "role": "source", "family": 4, "protocol": "tcp",
        "local_address": "10.0.0.1", "remote_address": "203.0.113.9", "port": 443, "age_seconds": 100.0,
    }  # fmt: skip
    return EdgeRow(**{**_blank(EdgeRow), **common, "id": id, **values})


def connection(id: str = "c", **values: Any) -> ConnectionRow:  # noqa: A002 the field's name
    common: dict[str, Any] = {
        "workload": "curl", "kind": "process", "process": "curl", "role": "source", "family": 4,
        "protocol": "tcp", "state": "ESTABLISHED", "local_address": "10.0.0.1", "local_port": 40000,
        "remote_address": "203.0.113.9", "remote_port": 443, "service_port": 443, "age_seconds": 100.0,
    }  # fmt: skip
    return ConnectionRow(**{**_blank(ConnectionRow), **common, "id": id, **values})


def record(local: str = "10.0.0.1", remote: str = "203.0.113.9", **values: Any) -> Array:
    row = np.zeros((), RECORD)
    row["laddr"] = np.frombuffer(packed(local), np.uint8)
    row["raddr"] = np.frombuffer(packed(remote), np.uint8)
    common = {"proto": TCP, "role": SOURCE, "state": 1, "lport": 40000, "rport": 443, "family": 4}
    for name, value in {**common, **values}.items():
        row[name] = value
    return row


def rows_of(*slots: Array, monotonic_ns: int = 10 * 10**9) -> list[EdgeRow]:
    owners = tuple(Ends(Owner("curl", "process", process="curl"), EXTERNAL) for _ in slots)
    table = np.array(list(slots), SLOT)
    return edge_rows(SimpleNamespace(edges=table, owners=owners, monotonic_ns=monotonic_ns))


def connections_of(*records: Array) -> list[ConnectionRow]:
    return connection_rows(np.array(list(records), RECORD), lambda _: Owner("curl", "process"), 10 * 10**9)


def test_an_aggregated_snapshot_gives_edge_rows(tmp_path: Path) -> None:
    rows = {3: server(live=2, opened=3, closed=1, sent_bytes=23_000, received_bytes=7, tgid=42)}
    (row,) = edge_rows(Aggregator(identity(tmp_path)).update(drain(rows)))
    assert (row.workload, row.kind, row.process, row.pid) == ("redis-server", "process", "redis-server", 42)
    assert (row.role, row.protocol, row.port) == ("destination", "tcp", 6379)
    assert (row.local_address, row.remote_address) == ("127.0.0.1", "127.0.0.1")
    assert (row.sent_bytes, row.received_bytes, row.live, row.opened, row.closed) == (23_000, 7, 2, 3, 1)
    assert row.failed == dict.fromkeys(FAILURES, 0)


def test_no_slots_no_rows() -> None:
    assert rows_of() == []
    assert connections_of() == []


@pytest.mark.parametrize(
    ("remote", "bits", "shown"),
    [
        ("203.0.113.9", 128, "203.0.113.9"),
        ("203.0.113.0", 120, "203.0.113.0/24"),
        ("0.0.0.0", 96, "0.0.0.0/0"),
        ("2001:db8::1", 128, "2001:db8::1"),
        ("2001:db8::", 48, "2001:db8::/48"),
        ("::", 0, "*"),
    ],
)
def test_remote_addresses(remote: str, bits: int, shown: str) -> None:
    assert rows_of(slot(remote=remote, bits=bits))[0].remote_address == shown


def test_ages_and_unknown_values_of_an_edge() -> None:
    known, overflow = rows_of(slot(born_ns=4 * 10**9, active_ns=9 * 10**9), np.zeros((), SLOT))
    assert (known.age_seconds, known.idle_seconds) == (6.0, 1.0)
    assert (overflow.age_seconds, overflow.pid, overflow.rtt_p50_us) == (None, None, None)
    assert (overflow.role, overflow.protocol) == ("", "")


def test_a_pair_counted_anew_has_another_id_and_else_the_same_one() -> None:
    first, again = rows_of(slot(born_ns=1, sent_bytes=1)), rows_of(slot(born_ns=1, sent_bytes=2))
    anew = rows_of(slot(born_ns=2))
    assert first[0].id == again[0].id != anew[0].id


def test_percentiles_lie_within_their_bucket_and_grow() -> None:
    values = list(range(100, 10_000, 7))
    (row,) = rows_of(slot(rtt=histogram(values)))
    assert row.rtt_p50_us == pytest.approx(np.percentile(values, 50), rel=0.05)
    assert row.rtt_p99_us == pytest.approx(np.percentile(values, 99), rel=0.15)


def test_the_open_bucket_gives_its_lower_bound() -> None:
    (row,) = rows_of(slot(rtt=histogram([10**9])))
    assert row.rtt_p50_us is not None
    assert 100e6 < row.rtt_p50_us < 120e6


def test_connection_rows() -> None:
    one, two = connections_of(
        record(sent_bytes=5, received_bytes=6, srtt_us=812, retransmitted=3, tgid=7, born_ns=8 * 10**9),
        record("2001:db8::1", "2001:db8::2", family=6, role=DESTINATION, lport=22, rport=50000, state=8),
    )
    assert (one.state, one.service_port, one.rtt_us, one.pid, one.age_seconds) == (
        "ESTABLISHED", 443, 812, 7, 2.0)  # fmt: skip
    assert (one.sent_bytes, one.received_bytes, one.retransmitted) == (5, 6, 3)
    assert (two.state, two.service_port, two.rtt_us, two.local_address) == (
        "CLOSE_WAIT", 22, None, "2001:db8::1")  # fmt: skip


def test_a_connection_id_never_shows_nor_depends_on_the_kernel_address() -> None:
    one, other = connections_of(record(socket=0xFFFF888012345678, born_ns=1), record(socket=1, born_ns=1))
    assert one.id == other.id
    assert re.fullmatch("[0-9a-f]{16}", one.id)
    assert connections_of(record(born_ns=2))[0].id != one.id


def test_a_udp_socket_keeps_its_id_when_its_peer_changes() -> None:
    udp: dict[str, Any] = {"proto": UDP, "state": 0, "born_ns": 1}
    one, other = connections_of(record(remote="10.0.0.2", **udp), record(remote="10.0.0.3", **udp))
    assert one.id == other.id
    assert one.state == ""


def test_states_are_those_of_the_kernel() -> None:
    assert [columns.state_name(n) for n in (1, 2, 7, 10, 12)] == [
        "ESTABLISHED", "SYN_SENT", "CLOSE", "LISTEN", "NEW_SYN_RECV"]  # fmt: skip
    assert columns.state_name(99) == "99"


def test_json_round_trip() -> None:
    (row,) = rows_of(slot(rtt=histogram([500]), failed=np.arange(len(FAILURES)), born_ns=1))
    assert EdgeRow.from_json(json.loads(json.dumps(row.to_json()))) == row
    (socket,) = connections_of(record(comm=b"a \x1b[31m"))
    assert ConnectionRow.from_json(json.loads(json.dumps(socket.to_json()))) == socket


def test_keys_of_a_newer_agent_are_passed_over() -> None:
    assert EdgeRow.from_json({**edge().to_json(), "mood": "good"}) == edge()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"port": "443"}, "port is '443', not a whole number"),
        ({"sent_bytes": True}, "sent_bytes is True"),
        ({"rtt_p50_us": float("nan")}, "rtt_p50_us is nan"),
        ({"failed": [1]}, "failed is"),
    ],
)
def test_a_wrong_value_is_named(change: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=re.escape(said)):
        EdgeRow.from_json({**edge().to_json(), **change})


def test_a_missing_key_is_named() -> None:
    value = edge().to_json()
    del value["netns"]
    with pytest.raises(ValueError, match="no key 'netns'"):
        EdgeRow.from_json(value)


@pytest.mark.parametrize("row", [EdgeRow, ConnectionRow])
def test_every_key_is_documented(row: type) -> None:
    documented = set(re.findall(r"\w+", row.__doc__ or ""))
    assert {f.name for f in fields(row)} <= documented


def test_service_names_are_remembered_within_a_bound() -> None:
    asked: list[int] = []

    def lookup(port: int, protocol: str) -> str:
        asked.append(port)
        if port == 9:
            raise OSError("port/proto not found")
        return f"{protocol}{port}"

    names = ServiceNames(limit=2, lookup=lookup)
    assert [names.text(port, "tcp") for port in (1, 1, 9, 9, 0)] == ["1 tcp1", "1 tcp1", "9", "9", ""]
    assert asked == [1, 9]
    names.name(2, "tcp")
    assert (len(names), names.evicted) == (2, 1)
