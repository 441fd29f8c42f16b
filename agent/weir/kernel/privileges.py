# SPDX-License-Identifier: Apache-2.0
"""Giving up, once everything is attached, what only attaching needs: for good, and for what this starts, too.

Sources: capabilities(7), PR_CAPBSET_DROP and PR_SET_NO_NEW_PRIVS of prctl(2), capset(2).
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from weir.errors import PrivilegeError
from weir.kernel import mounts, sandbox

_PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS, _PR_CAP_AMBIENT, _CLEAR_ALL = 24, 38, 47, 4
_VERSION_3 = 0x20080522
_LAST = Path("/proc/sys/kernel/cap_last_cap")
_libc = ctypes.CDLL(None, use_errno=True)

#: Capability → what an agent that runs may do with it; :func:`needed` says when it does.
KEPT = {
    "CAP_BPF": "reading maps and iterators, giving idle slots back (bpf(2)); always",
    "CAP_DAC_READ_SEARCH": "reading certificates, passwords, tokens anew that belong to other users",
    "CAP_SYS_PTRACE": "what processes have mapped (--tls); their names, where /proc hides them (hidepid)",
    "CAP_NET_ADMIN": "attaching to connection tracking once it is in use; seeing whether a program rewrites"
    " addresses at connect(2) (--services auto in a cluster)",
    "CAP_PERFMON": "the kprobe on connection tracking",
    "CAP_SYS_ADMIN": "uprobes (--tls; perf_uprobe_event_init) and the very files that processes have mapped;"
    " entering the namespaces of --netns once connections are tracked there; in place of CAP_BPF where"
    " the kernel, or who started Weir, does not know that",
}


@dataclass(frozen=True)
class Uses:
    """What an agent goes on doing. ``waits``: connection tracking is not in use yet; ``scoped``: by --netns.

    ``services``: programs that rewrite addresses are looked for; ``files``: some are read anew.
    """

    tls: bool = False
    waits: bool = False
    scoped: bool = False
    services: bool = False
    files: bool = False


def needed(uses: Uses) -> frozenset[str]:
    """Capabilities that an agent goes on using, of those that it has."""
    hidden = any("hidepid=" in told and "hidepid=0" not in told for _, told in mounts.mounted("proc"))
    wanted = {
        "CAP_BPF": True,
        "CAP_DAC_READ_SEARCH": uses.files,
        "CAP_SYS_PTRACE": uses.tls or hidden,
        "CAP_NET_ADMIN": uses.waits or uses.services,
        "CAP_PERFMON": uses.waits,
        "CAP_SYS_ADMIN": uses.tls or (uses.waits and uses.scoped),
    }
    box = sandbox.read()
    found = {name for name, use in wanted.items() if use}
    if not all(box.has(name) for name in found & {"CAP_BPF", "CAP_PERFMON"}):  # Docker 20.10, Linux 5.7
        found.add("CAP_SYS_ADMIN")
    return frozenset(name for name in found if box.has(name))


def keep(names: Collection[str]) -> frozenset[str]:
    """Give up all others, and the ways to get any back (bounding set, set-user-ID programs).

    Only of this thread and those that it starts: to be called before there are others. Returns the names.
    PrivilegeError where the kernel refuses, or where another thread still has more.
    """
    bits = sum(1 << sandbox.CAPABILITIES[name] for name in names)
    try:
        last = int(_LAST.read_text(encoding="ascii"))
    except (OSError, ValueError) as error:
        raise PrivilegeError(f"{_LAST} cannot be read: {error}") from None
    for number in range(last + 1):
        if not bits >> number & 1:  # without CAP_SETPCAP it stays there, of no use: no new privileges, below
            _libc.prctl(_PR_CAPBSET_DROP, number, 0, 0, 0)
    _libc.prctl(_PR_CAP_AMBIENT, _CLEAR_ALL, 0, 0, 0)
    _check(_libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "prctl(PR_SET_NO_NEW_PRIVS)")
    head = struct.pack("<Ii", _VERSION_3, 0)
    low, high = bits & 0xFFFFFFFF, bits >> 32
    data = struct.pack("<IIIIII", low, low, 0, high, high, 0)  # effective, permitted, inheritable
    _check(_libc.capset(head, data), "capset(2)")
    for task in Path("/proc/self/task").iterdir():
        if _permitted(task) & ~bits:
            raise PrivilegeError(
                f"thread {task.name} of this process was there before and still has more than"
                f" {', '.join(sorted(names)) or 'none'}"
            )
    return frozenset(names)


def _permitted(task: Path) -> int:
    status = (task / "status").read_text(encoding="utf-8").splitlines()
    return int(next(line for line in status if line.startswith("CapPrm:")).split()[1], 16)


def _check(result: int, call: str) -> None:
    if result:
        error = os.strerror(ctypes.get_errno())
        raise PrivilegeError(f"capabilities cannot be given up: {call}: {error}")
