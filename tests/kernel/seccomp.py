# SPDX-License-Identifier: Apache-2.0
"""Runs a command under a real seccomp filter that answers one system call with an errno, as sandboxes do.

``python seccomp.py ERRNO NUMBER[:FIRST_ARGUMENT] COMMAND...``; :func:`under` gives that as a prefix.
"""

from __future__ import annotations

import ctypes
import os
import platform
import struct
import sys

_NUMBERS = {
    "x86_64": {"bpf": 321, "perf_event_open": 298, "mount": 165, "setns": 308},
    "aarch64": {"bpf": 280, "perf_event_open": 241, "mount": 40, "setns": 268},
}
_LOAD, _EQUAL, _RETURN = 0x20, 0x15, 0x06
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000
_NO_NEW_PRIVS, _SET_SECCOMP, _FILTER = 38, 22, 2


def under(error: int, call: str, first: int | None = None) -> tuple[str, ...]:
    """The prefix of a command; ``first``: only calls with this first argument."""
    number = _NUMBERS[platform.machine()][call]
    what = f"{number}" if first is None else f"{number}:{first}"
    return sys.executable, __file__, str(error), what


def _instructions(error: int, number: int, first: int | None) -> bytes:
    """struct seccomp_data: the number at 0, the first argument's low word at 16."""
    rows = [(_LOAD, 0, 0, 0), (_EQUAL, 0, 1 if first is None else 3, number)]
    if first is not None:
        rows += [(_LOAD, 0, 0, 16), (_EQUAL, 0, 1, first)]
    rows += [(_RETURN, 0, 0, _ERRNO | error), (_RETURN, 0, 0, _ALLOW)]
    return b"".join(struct.pack("<HBBI", *row) for row in rows)


def main(error: str, what: str, *command: str) -> None:
    number, _, first = what.partition(":")
    code = _instructions(int(error), int(number), int(first) if first else None)
    keep = ctypes.create_string_buffer(code, len(code))
    program = ctypes.create_string_buffer(struct.pack("<HxxxxxxQ", len(code) // 8, ctypes.addressof(keep)))
    libc = ctypes.CDLL(None, use_errno=True)
    for arguments in ((_NO_NEW_PRIVS, 1, 0, 0, 0), (_SET_SECCOMP, _FILTER, program, 0, 0)):
        if libc.prctl(*arguments):
            raise OSError(ctypes.get_errno(), "prctl")
    os.execvp(command[0], command)


if __name__ == "__main__":
    main(*sys.argv[1:])
