# SPDX-License-Identifier: Apache-2.0
"""Beginning to learn of translated connections, at once or when connection tracking comes into use.

The kprobe has nothing to be put on until nf_conntrack is loaded; the netfilter hook costs something for each
packet, so it is put where connections are tracked, or where Weir is scoped to.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

from weir.errors import KernelError
from weir.kernel import attach, bpf, conntrack, netns, plan
from weir.kernel.plan import Program

NOT_YET = "no connection is tracked here yet"
_COUNT = Path("/proc/sys/net/netfilter/nf_conntrack_count")


def begin(program: Program, fd: int, map_fd: int, folder: Path, scope: Iterable[int]) -> str:
    """Attach a loaded program, pin its links and learn of what is translated already; why not (yet), else "".

    ``scope`` are inodes of network namespaces; none: the one that we are in.
    """
    scope = tuple(scope)
    links: list[int] = []

    def attach_here() -> None:
        links.extend(attach.attach(program, fd, -1, program.targets))

    try:
        if program.hook == "kprobe":
            attach_here()
        elif scope:
            netns.each(attach_here, scope)
        elif in_use():
            attach_here()
        else:
            return NOT_YET
        for number, link in enumerate(links):
            bpf.pin(link, str(folder / "links" / (f"{program.name}-{number}" if number else program.name)))
    except KernelError as error:
        return str(error) if in_use() else NOT_YET
    except OSError as error:
        return f"{program.name} ({program.hook}) cannot be attached: {error.strerror}"
    finally:
        for link in links:
            os.close(link)
    with suppress(OSError):  # no ctnetlink here: connections older than Weir keep what they dialled
        _in(scope, lambda: _learn(map_fd))
    return ""


def in_use(count: Path = _COUNT) -> bool:
    """Whether this network namespace tracks any connection."""
    try:
        return int(count.read_text(encoding="ascii")) > 0
    except (OSError, ValueError):
        return False


def later(pins: Path, map_fd: int, scope: Iterable[int]) -> str:
    """Try again with what the loader pinned."""
    for program in plan.NAT.values():
        path = pins / "progs" / program.name
        if path.exists():
            fd = bpf.get(str(path))
            try:
                return begin(program, fd, map_fd, pins, scope)
            finally:
                os.close(fd)
    return NOT_YET


def _in(scope: tuple[int, ...], action: Callable[[], object]) -> None:
    if scope:
        netns.each(action, scope)
    else:
        action()


def _learn(map_fd: int) -> None:
    for key, value in conntrack.translated():
        bpf.map_update(map_fd, key, value)
