# SPDX-License-Identifier: Apache-2.0
"""Runs a command whose system calls somebody else decides on: ``notified.py SOCKET CALL... -- COMMAND...``.

The filter's listener (seccomp(2), SECCOMP_RET_USER_NOTIF) goes over the abstract unix socket SOCKET.
"""

from __future__ import annotations

import array
import ctypes
import os
import platform
import socket
import struct
import sys

_LOAD, _EQUAL, _RETURN = 0x20, 0x15, 0x06
_ALLOW, _NOTIFY = 0x7FFF0000, 0x7FC00000
_SECCOMP = {"x86_64": 317, "aarch64": 277}
_SET_MODE_FILTER, _NEW_LISTENER = 1, 8


def listener(numbers: list[int]) -> int:
    """Have these calls of this process, and of all that it starts, told; the descriptor that tells them."""
    rows = [(_LOAD, 0, 0, 0)]
    rows += [(_EQUAL, len(numbers) - at, 0, number) for at, number in enumerate(numbers)]
    rows += [(_RETURN, 0, 0, _ALLOW), (_RETURN, 0, 0, _NOTIFY)]
    code = b"".join(struct.pack("<HBBI", *row) for row in rows)
    keep = ctypes.create_string_buffer(code, len(code))
    program = ctypes.create_string_buffer(struct.pack("<HxxxxxxQ", len(rows), ctypes.addressof(keep)))
    libc = ctypes.CDLL(None, use_errno=True)
    fd = libc.syscall(_SECCOMP[platform.machine()], _SET_MODE_FILTER, _NEW_LISTENER, program)
    if fd < 0:
        raise OSError(ctypes.get_errno(), "seccomp")
    return int(fd)


def main(name: str, *rest: str) -> None:
    split = rest.index("--")
    with socket.socket(socket.AF_UNIX) as to:
        to.connect(f"\0{name}")
        fd = listener([int(number) for number in rest[:split]])
        to.sendmsg([b"!"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [fd]))])
    os.execvp(rest[split + 1], rest[split + 1 :])


if __name__ == "__main__":
    main(*sys.argv[1:])
