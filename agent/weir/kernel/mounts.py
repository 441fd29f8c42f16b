# SPDX-License-Identifier: Apache-2.0
"""File systems that Weir needs, found where the host has them, else mounted in a folder of Weir's.

A host without bpffs or cgroup v2 gets one under ``/run/weir/mnt``: nothing under ``/sys`` changes,
no other program sees a difference.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import re
from collections.abc import Iterator
from pathlib import Path

from weir.errors import PrivilegeError
from weir.kernel import refusal, trials

RUN = Path("/run/weir")


def api_socket(instance: str) -> Path:
    """Where an instance's agent serves root of this host."""
    return RUN / instance / "api"


_FOLDERS = {"bpf": "bpffs", "cgroup2": "cgroup2", "tracefs": "tracefs"}
#: The root of a mount that shows a whole file system; that of cgroup v2 is told relative to the reader's.
_WHOLE = re.compile(r"/|(/\.\.)+")
_libc = ctypes.CDLL(None, use_errno=True)


def mounted(kind: str, mountinfo: Path = Path("/proc/self/mountinfo")) -> Iterator[tuple[Path, str]]:
    """Mount points of a file system type with their options (proc(5), mountinfo)."""
    for line in mountinfo.read_text(encoding="utf-8").splitlines():
        left, _, right = line.partition(" - ")
        fields, tail = left.split(), right.split()
        if tail and tail[0] == kind and _WHOLE.fullmatch(fields[3]):
            point = fields[4].encode().decode("unicode_escape")
            yield Path(point), fields[5] + "," + (tail[2] if len(tail) > 2 else "")


def find(kind: str) -> Path | None:
    """A mount point of a type, or None; of cgroup v2 one that shows the host's root, where there is one."""
    points = [point for point, _ in mounted(kind)]
    if kind == "cgroup2":
        points.sort(key=lambda point: not trials.root_of_cgroup2(point))
    return next(iter(points), None)


def ensure(kind: str) -> Path:
    """A mount point of ``kind`` (bpf, cgroup2, tracefs), mounted in Weir's folder if need be."""
    found, point = find(kind), RUN / "mnt" / _FOLDERS[kind]
    if found and (kind != "cgroup2" or found == point or trials.root_of_cgroup2(found)):
        return found
    try:
        point.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise PrivilegeError(
            f"cannot make {point}: {error.strerror}; run as root with a writable /run"
        ) from None
    if errno := trials.mount(kind, point):
        if found:  # a container's own cgroups are better than none
            return found
        raise PrivilegeError(
            f"cannot mount {kind} at {point}: {os.strerror(errno)}; mount it on the host"
            f" (mount -t {kind} {kind} {_usual(kind)}), or: {refusal.of_mount(kind, errno)}"
        )
    return point


def _usual(kind: str) -> str:
    return {"bpf": "/sys/fs/bpf", "cgroup2": "/sys/fs/cgroup", "tracefs": "/sys/kernel/tracing"}[kind]


class Hold:
    """Says that this process uses Weir's mounts, until it ends; the last one may take them away.

    Pins do not keep a file system mounted: an unmount under another instance would end its counting.
    """

    def __init__(self) -> None:
        path = RUN / "lock"
        while True:
            try:
                RUN.mkdir(parents=True, exist_ok=True)
                self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            except OSError as error:
                raise PrivilegeError(
                    f"cannot write {path}: {error.strerror}; run as root with a writable /run"
                ) from None
            fcntl.flock(self._fd, fcntl.LOCK_SH)
            if _same_file(self._fd, path):
                return
            os.close(self._fd)  # the one before us removed it just now

    def release(self) -> None:
        """Let go; where nobody else holds and nothing is pinned, unmount and remove the folders."""
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            pass  # others are there
        else:
            self._unmount()
        os.close(self._fd)

    @staticmethod
    def _unmount() -> None:
        base = RUN / "mnt"
        if not any((base / "bpffs").glob("weir/*")):
            for name in _FOLDERS.values():
                _libc.umount2(str(base / name).encode(), 0)
                _rmdir(base / name)
        _rmdir(base)
        if [p.name for p in RUN.iterdir()] == ["lock"]:
            (RUN / "lock").unlink()
            _rmdir(RUN)


def _same_file(fd: int, path: Path) -> bool:
    try:
        return os.fstat(fd).st_ino == path.stat().st_ino
    except FileNotFoundError:
        return False


def _rmdir(path: Path) -> None:
    try:
        path.rmdir()
    except OSError:
        pass  # in use by another instance, or not there
