# SPDX-License-Identifier: Apache-2.0
"""Names of processes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import psutil

from weir.identity.cache import Cache

#: TASK_COMM_LEN less the final zero: comm is cut here.
_COMM = 15


class Processes:
    """tgid -> name and cgroup of a process that may be gone or be another one by now.

    ``comm`` is what the kernel side saw when the connection was made; it wins where the process
    that has the tgid now does not have that name. ``proc`` is used for cgroups; names come from
    psutil, which mends names that comm cut.
    """

    def __init__(self, proc: Path, clock: Callable[[], float], limit: int = 16384) -> None:
        self._proc = proc
        self.cache: Cache[tuple[int, float], str] = Cache(limit, clock)

    def name(self, tgid: int, comm: str) -> str:
        """Return the name; ``comm`` ("" if not known) where the process cannot be asked."""
        found = self._ask(tgid) if tgid else ""
        if comm and not _same(found, comm):
            return comm
        return found

    def cgroup(self, tgid: int, comm: str) -> str:
        """Return the text of /proc/PID/cgroup, "" when gone, unreadable or not the same process."""
        if not tgid:
            return ""
        folder = self._proc / str(tgid)
        try:
            if comm and (folder / "comm").read_text(errors="replace").rstrip("\n") != comm:
                return ""
            return (folder / "cgroup").read_text(errors="surrogateescape")
        except OSError:
            return ""

    def _ask(self, tgid: int) -> str:
        try:
            process = psutil.Process(tgid)
            key = (tgid, process.create_time())
            known = self.cache.get(key)
            return known if known is not None else self.cache.put(key, process.name())
        except (psutil.Error, OSError):
            return ""


def _same(name: str, comm: str) -> bool:
    return name == comm or (len(comm) >= _COMM and name.startswith(comm))
