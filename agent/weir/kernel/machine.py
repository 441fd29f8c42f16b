# SPDX-License-Identifier: Apache-2.0
"""What differs between processors: numbers of the system calls for which libc has no function.

Weir's structs are packed little-endian and its pointers are 8 bytes wide, so other machines are refused.
"""

from __future__ import annotations

import ctypes
import os
import platform
import struct
import sys

#: Machine (uname(2)) → numbers. x86: arch/x86/entry/syscalls/syscall_64.tbl; the others:
#: include/uapi/asm-generic/unistd.h (arch/arm64, arch/riscv: asm/unistd.h).
_NUMBERS = {
    "x86_64": {"bpf": 321, "perf_event_open": 298},
    "aarch64": {"bpf": 280, "perf_event_open": 241},
    "riscv64": {"bpf": 280, "perf_event_open": 241},
}
#: The same on every machine: numbers given since Linux 5.1.
_EVERYWHERE = {"fsopen": 430, "fsconfig": 431, "fsmount": 432}
#: Machines on which the kernel ring of the tests was run.
TESTED = ("x86_64", "aarch64")
_NONE = -1
_libc = ctypes.CDLL(None, use_errno=True)


def refusal(
    name: str = platform.machine(), pointer: int = struct.calcsize("P"), order: str = sys.byteorder
) -> str:
    """Why Weir cannot run on this machine, in one line; "" if it can. ``pointer`` in bytes."""
    if name in _NUMBERS and (pointer, order) == (8, "little"):
        return ""
    if name in _NUMBERS:
        return f"this Python is a {8 * pointer}-bit program on {name}: install a 64-bit one, and Weir in it"
    known = ", ".join(_NUMBERS)
    return f"Weir does not know the system calls of this machine ({name}): run it on one of {known}"


def number(call: str) -> int:
    """The call's number here; -1, which no kernel has, where it is not known."""
    numbers = {} if refusal() else _NUMBERS[platform.machine()]
    return (numbers | _EVERYWHERE).get(call, _NONE)


def syscall(call: str, *arguments: int | bytes | ctypes.Array[ctypes.c_char] | None) -> int:
    """Make a system call by name. OSError with the kernel's errno, ENOSYS on a machine not known."""
    result = int(_libc.syscall(number(call), *arguments))
    if result < 0:
        errno = ctypes.get_errno()
        raise OSError(errno, os.strerror(errno))
    return result
