# SPDX-License-Identifier: Apache-2.0
"""cgroup v2 id -> path. The id of a cgroup is the inode of its folder in the cgroup2 mount."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from weir.identity.cache import Cache


def find_cgroup2(proc: Path) -> Path | None:
    """Return where the cgroup2 hierarchy's root is mounted (proc(5), mountinfo), or None."""
    try:
        lines = (proc / "self" / "mountinfo").read_text(errors="surrogateescape").splitlines()
    except OSError:
        return None
    for line in lines:
        before, _, after = line.partition(" - ")
        fields = before.split()
        if after.startswith("cgroup2 ") and len(fields) > 4 and fields[3] == "/":
            return Path(fields[4].encode(errors="surrogateescape").decode("unicode_escape"))
    return None


class CgroupPaths:
    """Paths by cgroup id, below ``root`` (the cgroup2 mount, None where there is none).

    The tree is walked on a miss, at most once in ``min_walk`` seconds of ``clock``; an id that was not
    found is not looked for again for ``negative_ttl`` seconds. A cgroup that is gone keeps its path for
    as long as it is among the ``limit`` youngest entries.
    """

    def __init__(
        self,
        root: Path | None,
        clock: Callable[[], float],
        min_walk: float = 1.0,
        negative_ttl: float = 30.0,
        limit: int = 65536,
    ) -> None:
        self._root = root
        self._clock = clock
        self._min_walk = min_walk
        self._negative_ttl = negative_ttl
        self._next_walk = float("-inf")
        self.cache: Cache[int, str] = Cache(limit, clock)
        self._missing: Cache[int, bool] = Cache(limit, clock)
        self.walks = 0

    def path(self, cgroup_id: int) -> str | None:
        """Return the path below the mount, "/" for its root; None when the id is not (yet) known."""
        known = self.cache.get(cgroup_id)
        if known is not None or self._root is None:
            return known
        if self._missing.get(cgroup_id):
            return None
        if self._clock() < self._next_walk:
            return None
        self._walk(self._root)
        found = self.cache.get(cgroup_id)
        if found is None:
            self._missing.put(cgroup_id, True, self._negative_ttl)
        return found

    def _walk(self, root: Path) -> None:
        self.walks += 1
        try:
            self.cache.put(root.stat().st_ino, "/")
        except OSError:
            pass
        waiting = [""]
        while waiting:
            parent = waiting.pop()
            try:
                with os.scandir(f"{root}{parent}") as entries:
                    folders = [e for e in entries if e.is_dir(follow_symlinks=False)]
            except OSError:
                continue  # removed while we looked
            for entry in folders:
                path = f"{parent}/{entry.name}"
                self.cache.put(entry.inode(), path)
                waiting.append(path)
        self._next_walk = self._clock() + self._min_walk
