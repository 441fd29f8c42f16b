# SPDX-License-Identifier: Apache-2.0
"""Columns of the table of pairs or connections."""

from __future__ import annotations

from weir.views import units
from weir.views.layout import Column
from weir.views.rates import Rated, Row, live, port, rtt_us
from weir.views.rows import ConnectionRow, EdgeRow
from weir.views.service_names import ServiceNames

EDGES, CONNECTIONS = "edges", "connections"
VIEWS = (EDGES, CONNECTIONS)

_ARROWS = {"source": "→", "destination": "←"}
_SHORT = {"ESTABLISHED": "ESTAB"}  # as ss writes it


def columns_of(view: str, services: ServiceNames) -> tuple[Column[Rated], ...]:
    """All columns of a view, from left to right."""
    pairs = view == EDGES
    middle: Column[Rated] = (
        Column("LIVE", 5, 5, lambda r: units.count(live(r.row)), right=True)
        if pairs
        else Column("STATE", 10, 5, lambda r: _state(r.row))
    )
    return (
        Column("NAME", 12 if pairs else 10, 0, lambda r: _name(r.row), most=40, sort="name"),
        Column("PROCESS", 14, 15, lambda r: r.row.process, most=15),
        Column("PID", 7, 12, lambda r: str(r.row.pid or ""), right=True),
        Column("LOCAL", 11 if pairs else 15, 8, lambda r: _local(r.row), most=39, middle=True),
        Column("REMOTE", 17 if pairs else 23, 1, lambda r: _remote(r.row), most=41, middle=True),
        *([Column("PEER", 10, 14, lambda r: _peer(r.row), most=20)] if pairs else []),
        Column("SERVICE", 9, 4, lambda r: services.text(port(r.row), r.row.protocol), most=16),
        Column("PROT", 4, 7, lambda r: r.row.protocol),
        middle,
        Column("TX/s", 7, 2, lambda r: units.amount(r.tx), right=True, sort="rate"),
        Column("RX/s", 7, 3, lambda r: units.amount(r.rx), right=True, sort="rate"),
        Column("TX", 7, 9, lambda r: units.amount(r.row.sent_bytes), right=True, sort="total"),
        Column("RX", 7, 10, lambda r: units.amount(r.row.received_bytes), right=True, sort="total"),
        Column("RTT", 7, 6, lambda r: units.duration_us(rtt_us(r.row)), right=True, sort="latency"),
        Column("RETR", 5, 11, lambda r: units.count(r.row.retransmitted), right=True),
    )


def _name(row: Row) -> str:
    return f"{row.namespace}/{row.workload}" if row.namespace else row.workload


def _state(row: Row) -> str:
    state = row.state if isinstance(row, ConnectionRow) else ""
    return _SHORT.get(state, state)


def _local(row: Row) -> str:
    if isinstance(row, EdgeRow):
        return row.local_address
    return endpoint(row.local_address, row.local_port)


def _remote(row: Row) -> str:
    far = row.remote_address if isinstance(row, EdgeRow) else endpoint(row.remote_address, row.remote_port)
    return f"{_ARROWS.get(row.role, ' ')} {far}"


def _peer(row: Row) -> str:
    return row.remote_workload if isinstance(row, EdgeRow) else ""


def endpoint(address: str, number: int) -> str:
    """Address and port, IPv6 in brackets."""
    return f"[{address}]:{number}" if ":" in address else f"{address}:{number}"
