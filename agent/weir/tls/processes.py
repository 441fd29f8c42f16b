# SPDX-License-Identifier: Apache-2.0
"""Running processes and the files with TLS that they may have mapped, by ``/proc``."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePath

from weir.tls.libraries import of_file_name

#: Files of one process that are looked at at most.
_FILES = 16


@dataclass(frozen=True)
class Mapped:
    """A mapped file: ``name`` by device and inode (``fe:00:12345``), ``via`` opens it, deleted or not."""

    name: str
    path: str
    via: str

    @property
    def may_have_two_names(self) -> bool:
        """Whether it lies on no device (major 0), as on overlayfs, where containers have names each for one
        file (since Linux 6.8): its probes may be set twice then.
        """
        return self.name.startswith("00:")


@dataclass(frozen=True)
class Scope:
    """Network namespaces (inodes) and cgroups (paths below the mount point) to stay in; empty: everywhere."""

    netns: frozenset[int] = frozenset()
    cgroups: tuple[str, ...] = ()

    def has(self, pid: int, proc: Path) -> bool:
        """Whether a process is in scope. OSError where it is gone."""
        if self.netns and (proc / f"{pid}/ns/net").stat().st_ino not in self.netns:
            return False
        if not self.cgroups:
            return True
        lines = (proc / f"{pid}/cgroup").read_text(encoding="utf-8", errors="replace").splitlines()
        own = next((line[3:] for line in lines if line.startswith("0::")), "/")
        return any(own == cgroup or own.startswith(cgroup.rstrip("/") + "/") for cgroup in self.cgroups)


def running(proc: Path = Path("/proc")) -> list[int]:
    """Process ids, the oldest first as far as ids tell."""
    return sorted(int(path.name) for path in proc.iterdir() if path.name.isdigit())


def mapped(pid: int, proc: Path = Path("/proc")) -> Iterator[Mapped]:
    """Executable mappings that may have TLS in them: the program, and libraries by their names."""
    base = proc / str(pid)
    try:
        program = str((base / "exe").readlink())
        lines = (base / "maps").read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:  # it ended, or is a thread of the kernel
        return
    seen: set[str] = set()
    for line in lines:
        parts = line.split(maxsplit=5)
        if len(parts) < 6 or "x" not in parts[1] or not parts[5].startswith("/"):
            continue
        path = parts[5]
        plain = path.removesuffix(" (deleted)")
        if path != program and not of_file_name(PurePath(plain).name):
            continue
        name = f"{parts[3]}:{parts[4]}".replace("-", "_")
        if name not in seen and len(seen) < _FILES:
            seen.add(name)
            yield Mapped(name, plain, str(base / "map_files" / _range(parts[0])))


def _range(text: str) -> str:
    """An address range as map_files(5) names it: without leading zeros."""
    return "-".join(part.lstrip("0") or "0" for part in text.split("-"))


def opened(file: Mapped, pid: int, proc: Path = Path("/proc")) -> int:
    """An fd of the mapped file itself. OSError where it cannot be had."""
    try:
        return os.open(file.via, os.O_RDONLY | os.O_CLOEXEC)
    except PermissionError:  # map_files wants CAP_SYS_ADMIN or CAP_CHECKPOINT_RESTORE
        pass
    fd = os.open(f"{proc}/{pid}/root{file.path}", os.O_RDONLY | os.O_CLOEXEC)
    with suppress(OSError, ValueError):
        if os.fstat(fd).st_ino == int(file.name.rpartition(":")[2]):
            return fd
    os.close(fd)
    raise PermissionError(1, "the file at its path is not the one that is mapped")
