# SPDX-License-Identifier: Apache-2.0
"""The agent's view of the pinned maps: slots by mmap, the rest by few system calls."""

from __future__ import annotations

import errno
import mmap
import os
import struct
from collections.abc import Collection, Mapping
from contextlib import suppress
from pathlib import Path

import numpy as np

from weir.kernel import bpf
from weir.kernel.layout import EVENTS, REQUESTS, RETIRING, SLOT, USED, Array

#: The kernel takes rows in order, but for those that CPUs have in hand and may put back.
_AHEAD = 256


#: Rows that are mapped at first.
_FIRST = 1024


class Mapped:
    """An mmap-able array of ``count`` rows, shared with the kernel.

    ``view`` is live (see :class:`Slots`), and of those rows that were ever used, and some: the kernel maps
    all pages that are asked for at once (``array_map_mmap``), and each counts as memory of this process.
    """

    def __init__(self, fd: int, count: int, dtype: np.dtype[np.void]) -> None:
        """The descriptor stays the caller's, who keeps it open as long as this is used."""
        self._fd, self.count, self._dtype = fd, count, dtype
        self.view: Array = self.mapped(min(count, _FIRST))
        self._reach = 1  # number of the last row that was ever used, and one

    def mapped(self, rows: int) -> Array:
        """The first rows, live, whether they were ever used or not."""
        memory = mmap.mmap(self._fd, _pages(rows * self._dtype.itemsize), mmap.MAP_SHARED)
        return np.frombuffer(memory, dtype=self._dtype, count=rows)

    def states(self) -> Array:
        """States of the rows that were ever used, from number 0 on."""
        while self._reach < self.count:
            if self._reach + _AHEAD > len(self.view) < self.count:
                self.view = self.mapped(min(self.count, 2 * len(self.view)))
            ahead = self.view[self._reach : self._reach + _AHEAD]
            used = np.flatnonzero(ahead["state"] | ahead["generation"])
            if not len(used):
                break
            self._reach += int(used[-1]) + 1
        found: Array = self.view["state"][: self._reach]
        return found

    def retire(self, index: int) -> None:
        """Mark a row, so that no socket goes on counting there from memory."""
        self.view["state"][index] = RETIRING


class Slots(Mapped):
    """The mmap-able array of slots (``layout.SLOT``), shared with the kernel.

    ``view`` is live: the kernel adds to it at any time. Copy rows before using them twice.
    """

    def __init__(self, fd: int, count: int) -> None:
        super().__init__(fd, count, SLOT)

    def used(self) -> Array:
        """Indexes of rows to drain: those in use, and slot 0 once it counted anything."""
        found = np.flatnonzero(self.states())
        overflow = self.view[0]
        if overflow["opened"] or overflow["sent_bytes"] or overflow["received_bytes"]:
            found = np.concatenate(([0], found[found > 0]))
        return found

    def towards(self, addresses: Collection[bytes]) -> list[int]:
        """Slots in use whose remote address (16 bytes) is one of these."""
        used = np.flatnonzero(self.states() == USED)
        raw = self.view["key"]["raddr"][used].tobytes()
        return [int(index) for at, index in enumerate(used) if raw[16 * at : 16 * at + 16] in addresses]


class RequestRows(Mapped):
    """The mmap-able array of request rows (``layout.REQUESTS``)."""

    def __init__(self, fd: int, count: int) -> None:
        super().__init__(fd, count, REQUESTS)

    def used(self) -> Array:
        """Indexes of rows to drain: those in use, and row 0 once it counted anything."""
        found = np.flatnonzero(self.states())
        overflow = self.view[0]
        if overflow["untimed"] or overflow["sum_ns"] or overflow["active_ns"]:
            found = np.concatenate(([0], found[found > 0]))
        return found


class Maps:
    """All pinned maps of one kernel side."""

    def __init__(self, pins: Path, slots: int, requests: int) -> None:
        folder = pins / "maps"
        self._fds = {p.name: bpf.get(str(p)) for p in sorted(folder.iterdir())}
        self.slots = Slots(self._fds["slots"], slots)
        self.requests = RequestRows(self._fds["requests"], requests) if requests else None
        self._cpus = _possible_cpus()
        self._marked: dict[tuple[bytes, int], int] | None = None

    def events(self) -> dict[str, int]:
        """What the kernel side could not do, by name (``layout.EVENTS``), summed over CPUs."""
        size = 8 * self._cpus
        return {
            name: sum(struct.unpack(f"<{self._cpus}Q", bpf.map_lookup(self._fds["events"], _u32(i), size)))
            for i, name in enumerate(EVENTS)
        }

    def tracked(self) -> int:
        """Connections that have state in the kernel now."""
        value = bpf.map_lookup(self._fds["tracked"], _u32(0), 8)
        return max(0, int(struct.unpack("<q", value)[0]))

    def forget_edge(self, index: int) -> bool:
        """Take a slot's edge out of the look-up table; False if it points elsewhere by now."""
        key = self.slots.view["key"][index].tobytes()
        try:
            if bpf.map_lookup(self._fds["edges"], key, 4) != _u32(index):
                return False
            bpf.map_delete(self._fds["edges"], key)
        except FileNotFoundError:
            return False
        return True

    def mark_ports(self, wanted: Mapping[tuple[bytes, int], int]) -> int:
        """Have connections to these servers (address of 16 bytes, port) counted as ``bpf/requests.h`` has it.

        Those that begin from now on, and to no others. How many found no room.
        """
        if self.requests is None or wanted == self._marked:
            return 0
        fd, left_out = self._fds["server_ports"], 0
        keys = {struct.pack("<16sH6x", *key): kind for key, kind in wanted.items()}
        for key in set(bpf.map_keys(fd, 24, 1 << 20)) - keys.keys():
            with suppress(FileNotFoundError):
                bpf.map_delete(fd, key)
        for key, kind in keys.items():
            try:
                bpf.map_update(fd, key, bytes((kind,)))
            except OSError as error:
                if error.errno != errno.E2BIG:
                    raise
                left_out += 1
        self._marked = dict(wanted)
        return left_out

    def forget_requests(self, index: int) -> None:
        """Take a row's key out of the look-up table, unless it points elsewhere by now."""
        assert self.requests is not None
        key = self.requests.view["key"][index].tobytes()
        try:
            if bpf.map_lookup(self._fds["request_rows"], key, 4) == _u32(index):
                bpf.map_delete(self._fds["request_rows"], key)
        except FileNotFoundError:
            return

    def sessions(self) -> list[tuple[int, int]]:
        """TLS sessions that are known (``struct tls_key`` of ``bpf/tls.h``): address, process id."""
        return [struct.unpack("<QQ", key) for key in bpf.map_keys(self._fds["tls_talks"], 16, 1 << 20)]

    def forget_calls(self) -> None:
        """Drop what threads were last seen to call their TLS libraries for."""
        for key in bpf.map_keys(self._fds["tls_calls"], 16, 1 << 20):
            with suppress(FileNotFoundError):
                bpf.map_delete(self._fds["tls_calls"], key)

    def drop_sessions(self, running: Collection[int]) -> None:
        """Drop TLS sessions of processes that ended within them; ``running`` are the ids of the others."""
        for session in self.sessions():
            if session[1] not in running:
                for name in ("tls_talks", "tls_h2s"):
                    with suppress(FileNotFoundError):
                        bpf.map_delete(self._fds[name], struct.pack("<QQ", *session))

    def has(self, name: str) -> bool:
        """Whether the kernel side has this map."""
        return name in self._fds

    def fd(self, name: str) -> int:
        """A map's descriptor, which stays this object's."""
        return self._fds[name]

    def close(self) -> None:
        """Close all descriptors; the pins stay."""
        for fd in self._fds.values():
            os.close(fd)
        self._fds.clear()


def _u32(value: int) -> bytes:
    return struct.pack("<I", value)


def _pages(size: int, page: int = mmap.PAGESIZE) -> int:
    """Whole pages, as the kernel maps an array (kernel/bpf/arraymap.c, array_map_mmap); 4 to 64 KiB each."""
    return -(-size // page) * page


def _possible_cpus(path: Path = Path("/sys/devices/system/cpu/possible")) -> int:
    text = path.read_text(encoding="ascii").strip()
    return int(text.rsplit("-", 1)[-1].rsplit(",", 1)[-1]) + 1
