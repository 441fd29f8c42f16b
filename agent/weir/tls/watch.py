# SPDX-License-Identifier: Apache-2.0
"""Finds TLS libraries as processes come, has them probed, and takes the probes away with the last process."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from weir.kernel.side import KernelSide
from weir.kernel.uprobes import Uprobes, refusal
from weir.tls import libraries, processes
from weir.tls.code import CodeError
from weir.tls.elf import ElfError, NotElfError
from weir.tls.processes import Mapped, Scope

_log = logging.getLogger("weir.tls")
#: Seconds between two rounds, and how long one may take; what is left waits for the next.
_ROUND, _BUSY = 1.0, 0.1
#: Seconds after a process was first seen at which it is looked at again: it may load its library late.
_LOOKS = (0.0, 1.0, 3.0, 8.0, 20.0)
_EVERY = 600.0
#: Rounds without a process until a file's probes go.
_UNUSED = 5
#: Files that are probed at once, and verdicts that are remembered.
_FILES, _VERDICTS = 1024, 8192
_SWEEP = 30.0
_HOST_PIDS = 0xEFFFFFFC  # include/linux/proc_ns.h, PROC_PID_INIT_INO


@dataclass
class _Process:
    due: float
    looks: int = 0
    files: set[str] = field(default_factory=set)


@dataclass
class _File:
    implementation: str
    fd: int
    stamp: tuple[int, int]
    users: set[int] = field(default_factory=set)
    unused: int = 0

    def changed(self) -> bool:
        """Whether it was written to: other instructions may be where the probes are for who maps it next."""
        return _stamp(os.fstat(self.fd)) != self.stamp


def _stamp(info: os.stat_result) -> tuple[int, int]:
    return info.st_mtime_ns, info.st_size


@dataclass(frozen=True)
class TlsState:
    """Files with probes by library, and files that could not be probed, since the agent began."""

    files: Mapping[str, int] = field(default_factory=dict)
    refused: int = 0


def unavailable(kernel: KernelSide) -> str:
    """Why TLS cannot be read though its programs are there; "" if it can."""
    return kernel.planes().get("tls", "not asked for") or impossible()


def impossible() -> str:
    """Why TLS cannot be read on this host, or from here; "" if it can."""
    if Path("/proc/self/ns/pid").stat().st_ino != _HOST_PIDS:
        return "the host's processes are not seen from here: run with --pid=host (hostPID: true)"
    return refusal()


class TlsWatch(threading.Thread):
    """A round every so many seconds until :meth:`stop`; survives errors, of which ``failed`` is told."""

    def __init__(
        self, kernel: KernelSide, scope: Scope, failed: Callable[[], None], every: float = _ROUND
    ) -> None:
        super().__init__(name="weir-tls", daemon=True)
        self._kernel, self._scope, self._failed, self._every = kernel, scope, failed, every
        self._uprobes = Uprobes(kernel.pins, kernel.program_fds())
        self._processes: dict[int, _Process] = {}
        self._files: dict[str, _File] = {}
        self._verdicts: OrderedDict[tuple[str, int, int], bool] = OrderedDict()
        self._refused = 0
        self._ended = True
        self._rounds = 0
        self._begun = False
        self._swept = time.monotonic()
        self._stopping = threading.Event()

    def state(self) -> TlsState:
        """What is probed now."""
        files = Counter(file.implementation for file in list(self._files.values()))
        return TlsState(dict(files), self._refused)

    def run(self) -> None:
        while not self._stopping.is_set():
            try:
                self.round()
            except Exception:  # noqa: BLE001 what a process has mapped must not end the thread
                self._failed()
                _log.exception("looking for TLS libraries failed; it is tried again")
            self._stopping.wait(self._every)

    def stop(self) -> None:
        """End; pinned probes go on, as all that is pinned does."""
        self._stopping.set()
        if self.is_alive():
            self.join(timeout=10)
        self._uprobes.close()
        for name in list(self._files):
            self._forget(name)

    def round(self) -> None:
        """Look at processes that are due, and drop what nobody uses any more."""
        now = time.monotonic()
        if not self._begun and not self._uprobes.files():
            self._drop_sessions()
            self._kernel.forget_sessions()  # probes of an earlier agent ended with it (before Linux 5.15)
        self._begun = True
        running = set(processes.running())
        for pid in running - self._processes.keys():
            self._processes[pid] = _Process(now)
        for pid in self._processes.keys() - running:
            self._gone(pid)
        waiting = sorted((p.due, -pid) for pid, p in self._processes.items() if p.due <= now)
        whole = True
        for _, pid in waiting:
            if time.monotonic() > now + _BUSY:
                whole = False
                break
            self._look(-pid, self._processes[-pid], now)
        self._rounds += whole
        self._drop_unused()
        if now > self._swept + _SWEEP:
            self._swept = now
            self._drop_sessions()

    def _look(self, pid: int, process: _Process, now: float) -> None:
        process.looks += 1
        later = _LOOKS[process.looks] - _LOOKS[process.looks - 1] if process.looks < len(_LOOKS) else _EVERY
        process.due = now + later
        try:
            if not self._scope.has(pid, Path("/proc")):
                return
        except OSError:
            return
        found = set()
        for file in processes.mapped(pid):
            if file.name in self._files or self._take(file, pid):
                found.add(file.name)
        for name in process.files - found:
            self._files[name].users.discard(pid)
        for name in found:
            self._files[name].users.add(pid)
        process.files = found

    def _take(self, file: Mapped, pid: int) -> bool:
        """Probe a file that is not known yet; whether it has probes now."""
        try:
            fd = processes.opened(file, pid)
        except OSError:  # the process ended meanwhile
            return False
        with os.fdopen(fd, "rb") as opened:
            stamp = _stamp(os.fstat(fd))
            verdict = file.name, *stamp
            if verdict in self._verdicts:
                self._verdicts.move_to_end(verdict)
                return False
            try:
                found = libraries.probes(opened, once=not file.may_have_two_names)
                if found and len(self._files) >= _FILES:
                    raise ElfError(f"{_FILES} files are probed already")
                if found:
                    self._uprobes.attach(file.name, fd, found[1])
            except (ElfError, CodeError, OSError) as error:
                self._refuse(file, error, verdict)
                return False
            self._remember(verdict)
            if not found:
                return False
            self._verdicts.pop(verdict)  # once its probes went, they may come again
            self._files[file.name] = _File(found[0], os.dup(fd), stamp)
        fields = {"file": file.path, "library": found[0], "probes": len(found[1])}
        _log.info("TLS is read where processes use this file", extra={"fields": fields})
        return True

    def _refuse(self, file: Mapped, error: Exception, verdict: tuple[str, int, int]) -> None:
        self._remember(verdict)
        if isinstance(error, NotElfError):
            return  # a program of 32 bits, or none: there is nothing to be said of it
        self._refused += 1
        fields = {"file": file.path, "why": error.strerror if isinstance(error, OSError) else str(error)}
        _log.warning("TLS of processes that use this file cannot be read", extra={"fields": fields})

    def _remember(self, verdict: tuple[str, int, int]) -> None:
        self._verdicts[verdict] = True
        if len(self._verdicts) > _VERDICTS:
            self._verdicts.popitem(last=False)

    def _gone(self, pid: int) -> None:
        for name in self._processes.pop(pid).files:
            self._files[name].users.discard(pid)
        self._ended = True

    def _drop_unused(self) -> None:
        for name, file in list(self._files.items()):
            file.unused = 0 if file.users else file.unused + 1
            if file.unused >= _UNUSED or file.changed():
                self._uprobes.detach(name)
                self._forget(name)
        if self._rounds == _UNUSED:  # what an earlier agent left and nobody uses
            for name in self._uprobes.files() - self._files.keys():
                self._uprobes.detach(name)

    def _forget(self, name: str) -> None:
        file = self._files.pop(name)
        os.close(file.fd)
        for pid in file.users:
            self._processes[pid].files.discard(name)

    def _drop_sessions(self) -> None:
        """Sessions of processes that ended within them."""
        ended, self._ended = self._ended, False
        if ended:
            with suppress(OSError):
                self._kernel.maps.drop_sessions(set(processes.running()))
