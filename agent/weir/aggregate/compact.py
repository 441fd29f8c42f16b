# SPDX-License-Identifier: Apache-2.0
"""SLOT rows -> the matrix of counters that is summed."""

from __future__ import annotations

import numpy as np

from weir import metrics
from weir.aggregate.snapshot import U64
from weir.kernel import layout
from weir.metrics import COLUMN, COLUMNS, CONNECT, RTT

#: First kernel bucket of each published one.
_GROUPS = np.concatenate(([0], np.searchsorted(layout.bucket_bounds_us(), metrics.BOUNDS_US) + 1))


def compact(slots: layout.Array) -> U64:
    """Counters of SLOT rows (n,) as a matrix (n, metrics.COLUMNS), as the source sees them.

    For a destination's edge sent and received change places. Slot 0 has no protocol: its bytes
    go under TCP.
    """
    out = np.zeros((len(slots), COLUMNS), np.uint64)
    udp = slots["key"]["proto"] == layout.UDP
    swap = slots["key"]["role"] == layout.DESTINATION
    for name, one, other in (
        ("sent_bytes", "sent_bytes", "received_bytes"),
        ("received_bytes", "received_bytes", "sent_bytes"),
    ):
        value = np.where(swap, slots[other], slots[one])
        out[:, COLUMN[f"tcp_{name}"]] = np.where(udp, 0, value)
        out[:, COLUMN[f"udp_{name}"]] = np.where(udp, value, 0)
    for prefix, sent, received in (
        ("udp_%s_datagrams", "sent_datagrams", "received_datagrams"),
        ("resets_%s", "resets_sent", "resets_received"),
    ):
        out[:, COLUMN[prefix % "sent"]] = np.where(swap, slots[received], slots[sent])
        out[:, COLUMN[prefix % "received"]] = np.where(swap, slots[sent], slots[received])
    for name in ("opened", "closed", "live", "retransmitted", "rtt_sum_us", "connect_sum_us"):
        out[:, COLUMN[name]] = slots[name]
    first = COLUMN[f"failed_{layout.FAILURES[0]}"]
    out[:, first : first + len(layout.FAILURES)] = slots["failed"]
    out[:, RTT] = np.add.reduceat(slots["rtt"], _GROUPS, axis=1)
    out[:, CONNECT] = np.add.reduceat(slots["connect"], _GROUPS, axis=1)
    return out
