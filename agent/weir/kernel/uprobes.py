# SPDX-License-Identifier: Apache-2.0
"""Uprobes: programs that run where a function of a file begins or returns, in each process that maps it.

Each is a link, pinned under ``uprobes/`` of the instance, so that it outlives the agent (Linux 5.15); before
that a perf event that the agent holds. The kernel removes a breakpoint when its last probe goes
(kernel/events/uprobes.c).
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import struct
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from weir.kernel import bpf, machine

_TYPE = Path("/sys/bus/event_source/devices/uprobe/type")
_LINK = 41  # enum bpf_attach_type BPF_PERF_EVENT, Linux 5.15
#: include/uapi/linux/perf_event.h: _IOW('$', 8, __u32), _IO('$', 0)
_SET_BPF, _ENABLE = 0x40042408, 0x2400


@dataclass(frozen=True)
class Probe:
    """A program at an instruction: ``offset`` in bytes from the file's beginning."""

    program: str
    offset: int


def refusal() -> str:
    """Why there are no uprobes on this kernel; "" where there are."""
    return "" if _TYPE.exists() else "this kernel has no uprobes (CONFIG_UPROBE_EVENTS)"


class Uprobes:
    """The probes of one instance, by file; a file is named by its device and inode (``fe:00:1234``)."""

    def __init__(self, pins: Path, programs: Mapping[str, int]) -> None:
        """``programs``: fds by name. Probes that an earlier agent left are known, and go on."""
        self._folder = pins / "uprobes"
        self._programs = programs
        self._held: dict[str, list[int]] = {}

    def files(self) -> set[str]:
        """Names of the files that have probes."""
        pinned = self._folder.iterdir() if self._folder.is_dir() else ()
        return {path.name.split("-")[0] for path in pinned} | self._held.keys()

    def attach(self, name: str, file: int, probes: Collection[Probe]) -> None:
        """Probe an open file: all of these, or OSError and none."""
        path = f"/proc/self/fd/{file}"
        there = {pin.name for pin in self._folder.glob(f"{name}-*")}
        try:
            for probe in probes:
                pin = f"{name}-{probe.offset:x}-{probe.program}"
                if pin not in there:
                    self._one(name, pin, path, probe)
        except OSError:
            self.detach(name)
            raise

    def _one(self, name: str, pin: str, path: str, probe: Probe) -> None:
        program = self._programs[probe.program]
        event = _event(path, probe.offset)
        try:
            link = bpf.call(bpf.LINK_CREATE, struct.pack("<IIII", program, event, _LINK, 0))
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.EBADF, errno.ENOTSUP):
                os.close(event)
                raise
            self._held.setdefault(name, []).append(event)
            fcntl.ioctl(event, _SET_BPF, program)
            fcntl.ioctl(event, _ENABLE, 0)
            return
        os.close(event)
        try:
            bpf.pin(link, str(self._folder / pin))
        finally:
            os.close(link)

    def detach(self, name: str) -> None:
        """Remove a file's probes."""
        for pin in self._folder.glob(f"{name}-*"):
            pin.unlink(missing_ok=True)
        for event in self._held.pop(name, ()):
            os.close(event)

    def close(self) -> None:
        """Let go of what is not pinned: it ends."""
        for events in self._held.values():
            for event in events:
                os.close(event)
        self._held.clear()


def _event(path: str, offset: int) -> int:
    """perf_event_open(2) of a uprobe in all processes: config1 is the path, config2 the offset."""
    name = ctypes.create_string_buffer(path.encode())
    attr = bytearray(112)
    struct.pack_into("<IIQ", attr, 0, int(_TYPE.read_text(encoding="ascii")), len(attr), 0)
    struct.pack_into("<QQ", attr, 56, ctypes.addressof(name), offset)
    buffer = (ctypes.c_char * len(attr)).from_buffer(attr)
    return machine.syscall("perf_event_open", buffer, -1, 0, -1, 8)  # PERF_FLAG_FD_CLOEXEC
