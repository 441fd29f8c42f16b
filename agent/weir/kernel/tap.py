# SPDX-License-Identifier: Apache-2.0
"""Single requests, as ``bpf/tap.h`` tells them to who asks: the asking, and the ring buffer they come by."""

from __future__ import annotations

import mmap
import struct
import time
from collections.abc import Iterator

import numpy as np

from weir.errors import KernelError
from weir.kernel import bpf
from weir.kernel.layout import SHED, TAP, TAPPED, Array
from weir.kernel.maps import Mapped
from weir.kernel.side import KernelSide

#: include/uapi/linux/bpf.h: of a record's length.
_BUSY, _DISCARDED = 1 << 31, 1 << 30
_HEAD = 8
#: The kernel stops telling so long (nanoseconds) after it was asked last: who asks may have been killed.
LEASE_NS = 2 * 10**9


class Ring:
    """The reading end of a BPF ring buffer; there may be only one.

    kernel/bpf/ringbuf.c maps a page for its position, one for the writers', and the data twice in a row.
    """

    def __init__(self, fd: int, size: int) -> None:
        page = mmap.PAGESIZE
        self._size = size
        self._own = mmap.mmap(fd, page, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)
        self._theirs = mmap.mmap(fd, page + 2 * size, mmap.MAP_SHARED, mmap.PROT_READ, offset=page)
        self._read = np.frombuffer(self._own, np.uint64, 1)
        self._written = np.frombuffer(self._theirs, np.uint64, 1)

    def records(self) -> Iterator[bytes]:
        """What was written since the last time, record by record; what is not whole yet is left."""
        while (at := int(self._read[0])) < int(self._written[0]):
            start = mmap.PAGESIZE + at % self._size
            (head,) = struct.unpack_from("<I", self._theirs, start)
            if head & _BUSY:
                return
            length = head & ~(_BUSY | _DISCARDED)
            if not head & _DISCARDED:
                yield self._theirs[start + _HEAD : start + _HEAD + length]
            self._read[0] = at + -(-(_HEAD + length) // 8) * 8


class Tap:
    """Asks one kernel side for single requests. Not for two processes at once: hold the instance's lock."""

    def __init__(self, side: KernelSide) -> None:
        """KernelError where this side has none: it counts no requests, or is of another version."""
        if not int(side.facts["options"]["requests"]):
            raise KernelError("tap: requests are not counted here (--no-requests)")
        if why := side.planes().get("requests"):
            raise KernelError(f"tap: requests cannot be counted here: {why}")
        try:
            asks, tapped, shed = map(side.maps.fd, ("tap", "tapped", "shed"))
        except KeyError:
            raise KernelError(
                "tap: what is loaded is of another version of Weir; restart `weir run`"
            ) from None
        self._asks = Mapped(asks, 1, TAP)
        self._shed = Mapped(shed, 1, SHED).view
        self._ring = Ring(tapped, bpf.map_info(tapped)[3])
        self._skipped = int(self._asks.view["skipped"][0])
        for _ in self._ring.records():  # what another one did not come to
            pass

    def ask(self, requests: int, monotonic_ns: int) -> None:
        """Have up to so many be told from now on, for :data:`LEASE_NS`."""
        self._asks.view["left"][0] = requests
        self._asks.view["until_ns"][0] = monotonic_ns + LEASE_NS

    def left(self) -> int:
        """How many more will be told."""
        return int(self._asks.view["left"][0])

    def read(self) -> Array:
        """Those that were told since the last time, dtype ``layout.TAPPED``."""
        whole = b"".join(r[: TAPPED.itemsize] for r in self._ring.records() if len(r) >= TAPPED.itemsize)
        return np.frombuffer(whole, TAPPED)

    def skipped(self) -> int:
        """Requests since the beginning that were not told: more than were asked for."""
        return int(self._asks.view["skipped"][0]) - self._skipped

    def held_back(self) -> bool:
        """Whether the agent lets nobody be told now, having too much to do."""
        return int(self._shed["tap_until_ns"][0]) > time.monotonic_ns()

    def stop(self) -> None:
        """Nothing more is wanted."""
        self._asks.view["left"][0] = 0
        self._asks.view["until_ns"][0] = 0
