# SPDX-License-Identifier: Apache-2.0
"""Errors that a user can mend, each with the exit code it ends a command with.

WeirError (1)
├── ConfigError (2)      an option, a YAML key or a value that cannot be
├── PrivilegeError (3)   not root, a missing capability, a read-only file system
├── KernelError (4)      this kernel cannot do what is asked
│   └── LoadError        one BPF program was refused; carries the verifier's last lines
├── BusyError (5)        another Weir holds this instance
└── ListenError (6)      the address to listen on cannot be had
"""

from __future__ import annotations

import traceback
from collections.abc import Mapping
from typing import Any


class WeirError(Exception):
    """One line that says what, where and how to mend it."""

    exit_code = 1


def unexpected(error: OSError | MemoryError | RuntimeError) -> str | None:
    """One line of an error that this machine made, with the place where it came up; None for others."""
    if isinstance(error, OSError):
        of = f"{error.filename}: " if error.filename else ""
        what = f"{of}{error.strerror or error}"
    elif isinstance(error, RuntimeError):
        if "new thread" not in str(error):  # CPython, Modules/_threadmodule.c
            return None
        what = str(error)
    else:
        what = "out of memory"
    place = ""
    for frame in traceback.extract_tb(error.__traceback__):
        if "/weir/" in frame.filename:
            place = f" (in {frame.filename.rpartition('/weir/')[2].removesuffix('.py')}, {frame.name})"
    return f"{what}{place}; mend that and start again"


class ConfigError(WeirError):
    """Bad option, YAML key or value."""

    exit_code = 2


class PrivilegeError(WeirError):
    """Not allowed to: not root, capability, read-only file system, lockdown."""

    exit_code = 3


class KernelError(WeirError):
    """This kernel cannot do what is asked."""

    exit_code = 4


class LoadError(KernelError):
    """A BPF program was refused by the kernel.

    ``program`` is its name, ``log`` the last lines of the verifier's log; ``facts`` has ``planes``,
    ``verified``, ``refused`` and ``log`` of all programs, as in ``kernel.json``.
    """

    def __init__(
        self, message: str, program: str = "", log: str = "", facts: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__(message)
        self.program = program
        self.log = log
        self.facts = facts or {}


class BusyError(WeirError):
    """Another Weir holds this instance."""

    exit_code = 5


class ListenError(WeirError):
    """The address to listen on cannot be had."""

    exit_code = 6
