# SPDX-License-Identifier: Apache-2.0
"""``native.c``: built by the test process, loaded by the peers."""

from __future__ import annotations

import ctypes
import errno
import functools
import os
import socket
import struct
import subprocess
from collections.abc import Sequence
from pathlib import Path

#: Tells a peer where the built library is.
VARIABLE = "WEIR_PEER_LIBRARY"


class UnsupportedError(Exception):
    """This kernel or machine has no such way of sending; the text names it."""


def build(folder: Path) -> Path:
    """Compiles ``native.c`` into ``folder``; without liburing where its headers are missing."""
    library = folder / "native.so"
    command = [
        "gcc",
        "-shared",
        "-fPIC",
        "-O1",
        "-Wall",
        "-Werror",
        str(Path(__file__).with_name("native.c")),
    ]
    probe = subprocess.run(
        ["gcc", "-fsyntax-only", "-xc", "-"],
        input=b"#include <liburing.h>\n",
        capture_output=True,
        check=False,
    )
    uring = ["-luring"] if probe.returncode == 0 else []
    subprocess.run([*command, "-o", str(library), *uring], check=True)
    return library


@functools.cache
def _library() -> ctypes.CDLL:
    path = os.environ.get(VARIABLE)
    if not path:
        raise UnsupportedError(f"{VARIABLE} is not set")
    return ctypes.CDLL(path)


def uring_send(sock: socket.socket, data: bytes, chunk: int) -> int:
    """Bytes taken by IORING_OP_SEND, all of ``data`` or an error."""
    sent = ctypes.c_size_t()
    size, chunk_size = ctypes.c_size_t(len(data)), ctypes.c_size_t(chunk)
    code = _library().uring_send(sock.fileno(), data, size, chunk_size, ctypes.byref(sent))
    if not sent.value and code in (-errno.ENOPKG, -errno.ENOSYS, -errno.EPERM):
        raise UnsupportedError(
            "io_uring: " + ("liburing is missing" if code == -errno.ENOPKG else "off in this kernel")
        )
    if code:
        raise OSError(-code, os.strerror(-code))
    return sent.value


def mmsg_send(
    sock: socket.socket, peers: Sequence[tuple[str, int]], data: bytes, count: int
) -> tuple[int, int]:
    """Datagrams and bytes taken by sendmmsg, round robin to ``peers`` (empty: connected)."""
    datagrams, size = ctypes.c_uint(), ctypes.c_size_t()
    names = b"".join(_sockaddr(sock.family, *peer).ljust(128, b"\0") for peer in peers)
    name_len = 28 if sock.family == socket.AF_INET6 else 16
    code = _library().mmsg_send(
        sock.fileno(), names, len(peers), name_len, data, ctypes.c_size_t(len(data)), count,
        ctypes.byref(datagrams), ctypes.byref(size),
    )  # fmt: skip
    if code:
        raise OSError(-code, os.strerror(-code))
    return datagrams.value, size.value


def _sockaddr(family: int, address: str, port: int) -> bytes:
    packed = socket.inet_pton(family, address)
    head = struct.pack("=H", family) + struct.pack("!H", port)
    return head + (bytes(4) + packed + bytes(4) if family == socket.AF_INET6 else packed + bytes(8))
