# SPDX-License-Identifier: Apache-2.0
"""Network namespaces: finding them, naming them, stepping into them."""

from __future__ import annotations

import ctypes
import fcntl
import os
from collections.abc import Callable, Iterable
from pathlib import Path

from weir.errors import ConfigError

_CLONE_NEWNET = 0x40000000
_NS_GET_NSTYPE = 0xB703
_NAMED = Path("/run/netns")
_libc = ctypes.CDLL(None, use_errno=True)


def inode(text: str, named: Path = _NAMED) -> int:
    """Inode number of a namespace given as a name under /run/netns, a path or a number."""
    hint = f"give a name under {named} (ip netns list), a path or an inode number"
    if text.isdigit():
        if int(text) not in known(named=named):
            raise ConfigError(f"--netns {text}: no process and no name has that namespace; {hint}")
        return int(text)
    path = Path(text) if "/" in text else named / text
    try:
        fd = os.open(path, os.O_RDONLY)
    except OSError as error:
        raise ConfigError(f"--netns {text}: {path}: {error.strerror}; {hint}") from None
    try:
        if _kind(fd) != _CLONE_NEWNET:
            raise ConfigError(f"--netns {text}: {path} is no network namespace; {hint}")
        return os.fstat(fd).st_ino
    finally:
        os.close(fd)


def _kind(fd: int) -> int:
    """The CLONE_NEW… flag of a namespace (ioctl_ns(2)); 0 for any other file."""
    try:
        return fcntl.ioctl(fd, _NS_GET_NSTYPE)
    except OSError:
        return 0


def known(proc: Path = Path("/proc"), named: Path = _NAMED) -> dict[int, Path]:
    """Inode → a path to it, for every namespace that has a name or a process."""
    paths: list[Path] = list(named.iterdir()) if named.is_dir() else []
    paths += [p / "ns/net" for p in proc.iterdir() if p.name.isdigit()]
    found: dict[int, Path] = {}
    for path in paths:
        try:
            found.setdefault(path.stat().st_ino, path)
        except OSError:
            continue  # gone, or a kernel thread that may not be looked at
    return found


def names(named: Path = _NAMED) -> dict[int, str]:
    """Inode → name under /run/netns."""
    return {p.stat().st_ino: p.name for p in named.iterdir()} if named.is_dir() else {}


def each(action: Callable[[], object], only: Iterable[int] = ()) -> None:
    """Call ``action`` inside every known namespace (or ``only`` these); for short-lived processes.

    The calling thread ends in the namespace where it began.
    """
    wanted = set(only)
    home = os.open("/proc/self/ns/net", os.O_RDONLY)
    try:
        for number, path in known().items():
            if (not wanted or number in wanted) and _enter(path):
                action()
    finally:
        _libc.setns(home, _CLONE_NEWNET)
        os.close(home)


def _enter(path: Path) -> bool:
    try:
        fd = os.open(path, os.O_RDONLY)
    except OSError:
        return False
    try:
        return int(_libc.setns(fd, _CLONE_NEWNET)) == 0
    finally:
        os.close(fd)
