# SPDX-License-Identifier: Apache-2.0
"""System calls of a real Weir that fail as a test wants it, in all of its processes and threads."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import itertools
import os
import platform
import re
import select
import socket
import struct
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.kernel.agents import ROOT

#: Calls that can fail, with what they fail by: number on x86_64 and aarch64, errno.
CALLS: dict[str, tuple[int, int, int]] = {
    "bpf": (321, 280, errno.ENOMEM),
    "openat": (257, 56, errno.EMFILE),
    "read": (0, 63, errno.EIO),
    "pread64": (17, 67, errno.EIO),
    "write": (1, 64, errno.ENOSPC),
    "mmap": (9, 222, errno.ENOMEM),
    "mkdir": (83, -1, errno.ENOSPC),
    "mkdirat": (258, 34, errno.ENOSPC),
    "rename": (82, -1, errno.EIO),
    "renameat": (264, 38, errno.EIO),
    "unlink": (87, -1, errno.EROFS),
    "unlinkat": (263, 35, errno.EROFS),
    "rmdir": (84, -1, errno.EBUSY),
    "mount": (165, 40, errno.EPERM),
    "umount2": (166, 39, errno.EBUSY),
    "flock": (73, 32, errno.ENOLCK),
    "fcntl": (72, 25, errno.EMFILE),
    "ftruncate": (77, 46, errno.EIO),
    "getdents64": (217, 61, errno.EIO),
    "newfstatat": (262, 79, errno.EACCES),
    "statx": (332, 291, errno.EACCES),
    "readlink": (89, -1, errno.EACCES),
    "readlinkat": (267, 78, errno.EACCES),
    "ioctl": (16, 29, errno.EIO),
    "perf_event_open": (298, 241, errno.EMFILE),
    "setns": (308, 268, errno.EPERM),
    "unshare": (272, 97, errno.EPERM),
    "socket": (41, 198, errno.EMFILE),
    "bind": (49, 200, errno.EADDRINUSE),
    "listen": (50, 201, errno.EADDRINUSE),
    "connect": (42, 203, errno.ECONNREFUSED),
    "accept4": (288, 242, errno.EMFILE),
    "sendto": (44, 206, errno.ENOBUFS),
    "recvfrom": (45, 207, errno.ECONNRESET),
    "recvmsg": (47, 212, errno.ENOBUFS),
    "setsockopt": (54, 208, errno.ENOBUFS),
    "epoll_create1": (291, 20, errno.EMFILE),
    "epoll_ctl": (233, 21, errno.ENOMEM),
    "eventfd2": (290, 19, errno.EMFILE),
    "pipe2": (293, 59, errno.EMFILE),
    "socketpair": (53, 199, errno.EMFILE),
    "vfork": (58, -1, errno.EAGAIN),
    "clone": (56, 220, errno.EAGAIN),
    "clone3": (435, 435, errno.EAGAIN),
    "capset": (126, 91, errno.EPERM),
    "prctl": (157, 167, errno.EINVAL),
    "setgroups": (116, 159, errno.EPERM),
}
_AT_PATH = {"openat", "mkdirat", "unlinkat", "newfstatat", "statx", "readlinkat", "renameat"}
_PATH = {"mkdir", "rename", "unlink", "rmdir", "readlink"}
_OF_FD = {"read", "pread64", "write", "lseek", "getdents64", "ioctl", "ftruncate", "flock", "fcntl"}
#: What the interpreter and the linker read, which is not Weir's to survive.
_OTHERS = tuple(
    str(path)
    for path in (sys.prefix, sys.base_prefix, Path(sys.prefix).resolve(), ROOT / "agent", ROOT / ".venv",
                 "/usr", "/lib", "/lib64", "/etc/ld.so", "/etc/localtime", "/etc/locale", "/etc/ssl",
                 "/dev/null", "/dev/urandom", "/root", "/proc/stat", "/sys/devices/system/cpu/cpu")
)  # fmt: skip
_ALSO = (str(ROOT / "agent/weir/_bpf"),)
_MAP_SHARED, _PROT_NONE = 1, 0
_COMMANDS = {
    0: "MAP_CREATE", 1: "MAP_LOOKUP", 2: "MAP_UPDATE", 3: "MAP_DELETE", 4: "MAP_NEXT_KEY", 5: "PROG_LOAD",
    6: "OBJ_PIN", 7: "OBJ_GET", 8: "PROG_ATTACH", 10: "PROG_TEST_RUN", 15: "OBJ_INFO", 16: "PROG_QUERY",
    17: "RAW_TRACEPOINT_OPEN", 18: "BTF_LOAD", 24: "MAP_LOOKUP_BATCH", 28: "LINK_CREATE", 32: "ENABLE_STATS",
    33: "ITER_CREATE",
}  # fmt: skip
_NOTIF, _RESP = struct.Struct("<QIIiIQ6Q"), struct.Struct("<QqiI")
_RECV, _SEND, _CONTINUE = 0xC0502100, 0xC0182101, 1
#: TCGETS, which asks whether it is a terminal; F_GETFD, F_SETFD, F_GETFL, F_SETFL.
_HARMLESS = {0x5401, 1, 2, 3, 4}
_numbers = itertools.count(1)


@dataclass(frozen=True)
class Call:
    """One call that is about to be made; ``site`` is what is called with what, without numbers."""

    name: str
    pid: int
    args: tuple[int, ...]
    site: str

    @property
    def error(self) -> int:
        return CALLS[self.name][2]


class Faults:
    """Decides on the calls of every command that ``wrap`` is put before; ``decide`` gives an errno, or 0."""

    def __init__(self, decide: Callable[[Call], int]) -> None:
        self._decide = decide
        self._name = f"weirt-faults-{os.getpid()}-{next(_numbers)}"
        self._server = socket.socket(socket.AF_UNIX)
        self._server.bind(f"\0{self._name}")
        self._server.listen(8)
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []
        column = {"x86_64": 0, "aarch64": 1}[platform.machine()]
        self._by_number = {of[column]: name for name, of in CALLS.items() if of[column] >= 0}
        self.failed: list[Call] = []

    @property
    def wrap(self) -> tuple[str, ...]:
        """The prefix of a command."""
        return (sys.executable, str(Path(__file__).with_name("notified.py")), self._name,
                *map(str, self._by_number), "--")  # fmt: skip

    def __enter__(self) -> Faults:
        self._start(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(10)
        self._server.close()

    def _start(self, run: Callable[..., None], *args: object) -> None:
        thread = threading.Thread(target=run, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while not self._stop.is_set():
            if select.select([self._server], [], [], 0.1)[0]:
                one, _ = self._server.accept()
                with one:
                    _, fds, _, _ = socket.recv_fds(one, 1, 1)
                self._start(self._watch, fds[0])

    def _watch(self, fd: int) -> None:
        """Answer until nobody is left who has the filter."""
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        try:
            while True:
                events = poll.poll(200)
                if any(event & select.POLLIN for _, event in events):
                    self._answer(fd)
                elif events:
                    return
        finally:
            os.close(fd)

    def _answer(self, fd: int) -> None:
        buffer = bytearray(_NOTIF.size)
        try:
            fcntl.ioctl(fd, _RECV, buffer)
        except OSError:  # it was killed
            return
        number, pid, _, call, _, _, *args = _NOTIF.unpack(buffer)
        name = self._by_number[call]
        site = site_of(name, pid, args)
        error = 0
        if site:
            made = Call(name, pid, tuple(args), f"{name} {site}")
            error = self._decide(made)
            if error:
                self.failed.append(made)
        reply = _RESP.pack(number, 0, -error, 0 if error else _CONTINUE)
        with contextlib.suppress(OSError):
            fcntl.ioctl(fd, _SEND, bytearray(reply))


def _memory(pid: int, at: int, size: int) -> bytes:
    with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as memory:
        memory.seek(at)
        return memory.read(size)


def _text(pid: int, at: int) -> str:
    try:
        return _memory(pid, at, 256).partition(b"\0")[0].decode("utf-8", "replace")
    except (OSError, ValueError, OverflowError):
        return "?"


def _target(pid: int, fd: int) -> str:
    try:
        return str(Path(f"/proc/{pid}/fd/{ctypes.c_int(fd & 0xFFFFFFFF).value}").readlink())
    except OSError:
        return ""


def site_of(name: str, pid: int, args: list[int]) -> str:
    """What is called, without numbers; "" where it is the interpreter's and not Weir's."""
    if name == "bpf":
        return _bpf(pid, args)
    if name == "mmap":
        shared = args[3] & 3 == _MAP_SHARED and ctypes.c_int(args[4] & 0xFFFFFFFF).value >= 0
        return _plain(_target(pid, args[4])) if shared else ""
    if name in _AT_PATH or name in _PATH:
        path = _text(pid, args[1 if name in _AT_PATH else 0])  # "": of a file that is open
        return "" if _foreign(path) else _plain(path)
    if name in _OF_FD:
        path = _target(pid, args[0])
        if name in ("ioctl", "fcntl"):
            if args[1] in _HARMLESS:
                return ""
            path += f" {args[1] & 0xFFFF:x}"
        return "" if _foreign(path) or not path else _plain(path)
    if name == "prctl":
        return str(args[0])
    return "any"


def _foreign(path: str) -> bool:
    """Whether it is not of Weir: the interpreter's files, and names that are relative to them."""
    if path.startswith(_ALSO):
        return False
    return (
        not path
        or path == "/"
        or path.startswith(_OTHERS)
        or path.endswith((".py", ".pyc", ".so", "__pycache__"))
    )


def _plain(path: str) -> str:
    return re.sub(r"[0-9a-f]{12,}|\d+", "N", path)


def _bpf(pid: int, args: list[int]) -> str:
    command = _COMMANDS.get(args[0], str(args[0]))
    name = ""
    if command == "MAP_CREATE":
        name = _text(pid, args[1] + 28)[:16]
    elif command == "PROG_LOAD":
        name = _text(pid, args[1] + 48)[:16]
    elif command in ("OBJ_PIN", "OBJ_GET"):
        try:
            (at,) = struct.unpack("<Q", _memory(pid, args[1], 8))
            name = "/".join(_text(pid, at).split("/")[-2:])
        except OSError:
            name = "?"
    return f"{command} {name}".strip()
