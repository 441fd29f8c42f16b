# SPDX-License-Identifier: Apache-2.0
"""The smallest thing of each kind that Weir does, really tried: what the kernel answers, as an errno.

Nothing is left behind and nothing of the host's changes: what is made is closed at once, the mounts
are made in a mount namespace of their own, and the attachments name no target that exists.
"""

from __future__ import annotations

import ctypes
import errno
import os
import resource
import struct
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from weir.kernel import attach, bpf, machine
from weir.kernel.btf import FUNC, TYPEDEF, Btf
from weir.kernel.sandbox import FIRST

_NEWNS, _NEWCGROUP, _NEWNET = 0x00020000, 0x02000000, 0x40000000
_REC, _PRIVATE = 0x4000, 1 << 18
_libc = ctypes.CDLL(None, use_errno=True)


def _code(*rows: tuple[int, int, int, int]) -> bytes:
    return b"".join(struct.pack("<BBhi", *row) for row in rows)


#: r0 = 0 or 1; exit
_ZERO, _ONE = (_code((0xB7, 0, 0, value), (0x95, 0, 0, 0)) for value in (0, 1))
#: bpf_probe_read_kernel(r10 - 8, 8, r10 - 8); r0 = 0; exit
_READ = _code(
    (0x7A, 10, -8, 0), (0xBF, 0xA1, 0, 0), (0x07, 1, 0, -8), (0xB7, 2, 0, 8), (0xBF, 0x13, 0, 0),
    (0x85, 0, 0, 113), (0xB7, 0, 0, 0), (0x95, 0, 0, 0),
)  # fmt: skip
#: as features._CMPXCHG: r0 = cmpxchg(*(u64 *)(r10 - 8), r0, r0)
_CMPXCHG = _code((0xB7, 0, 0, 0), (0x7B, 0x0A, -8, 0), (0xDB, 0x0A, -8, 0xF1), (0x95, 0, 0, 0))


@dataclass(frozen=True)
class Trial:
    """One attempt. ``error`` is 0 or the errno; ``log`` what the verifier said.

    ``filtered`` is the errno with which even a senseless call is answered that the kernel itself would
    answer otherwise: then a seccomp filter stands before it; else 0.
    """

    name: str
    call: str = "bpf"
    error: int = 0
    log: str = ""
    filtered: int = 0

    @property
    def refused(self) -> bool:
        """Whether the answer was one of not being allowed to, not of not being able to."""
        return self.error in (errno.EPERM, errno.EACCES) or bool(self.filtered)

    @property
    def text(self) -> str:
        """The errno by name and in words."""
        return f"{errno.errorcode.get(self.error, self.error)}, {os.strerror(self.error)}"


def run(types: Btf | None) -> dict[str, Trial]:
    """All trials by name; without BTF those that name a type of the kernel's are left out."""
    return {trial.name: trial for trial in (*_objects(), *_typed(types), *_attachments(), *_calls())}


def smallest() -> dict[str, Trial]:
    """The trials of maps and programs alone."""
    return {trial.name: trial for trial in (*_objects(), *_attachments())}


def _objects() -> Iterator[Trial]:
    yield _bpf("map", bpf.probe)
    yield _bpf("memlock", _charged_map)
    yield _program("program", bpf.RAW_TRACEPOINT, 0, _ZERO)
    yield _program("read", bpf.RAW_TRACEPOINT, 0, _READ)
    yield _program("cmpxchg", bpf.RAW_TRACEPOINT, 0, _CMPXCHG)
    yield _program("kprobe program", bpf.KPROBE, 0, _ZERO)
    yield _program("packet program", bpf.CGROUP_SKB, bpf.CGROUP_EGRESS, _ONE)
    yield _program("sock_create program", bpf.CGROUP_SOCK, bpf.CGROUP_SOCK_CREATE, _ONE)
    yield _bpf("statistics", lambda: os.close(bpf.enable_stats()))


def _typed(types: Btf | None) -> Iterator[Trial]:
    if types is None:
        return
    for name, attach_type, target in (
        ("typed program", bpf.TRACE_RAW_TP, types.find("btf_trace_inet_sock_set_state", TYPEDEF)),
        ("iterator", bpf.TRACE_ITER, types.find("bpf_iter_task_file", FUNC)),
    ):
        if target:
            yield _program(name, bpf.TRACING, attach_type, _ZERO, target)


def _attachments() -> Iterator[Trial]:
    try:
        fd = bpf.prog_load(bpf.CGROUP_SKB, bpf.CGROUP_EGRESS, _ONE, "weir_trial")
    except OSError:
        return
    try:  # rights are looked at before the target (kernel/bpf/syscall.c, link_create)
        trial = _bpf("packet attachment", lambda: bpf.link_cgroup(fd, (1 << 31) - 1, bpf.CGROUP_EGRESS))
    finally:
        os.close(fd)
    yield Trial("packet attachment") if trial.error == errno.EBADF else trial


def _calls() -> Iterator[Trial]:
    if attach._KPROBE_TYPE.exists():
        yield _perf("kprobe")
    error = filtered("perf_event_open")
    yield Trial("perf", "perf_event_open", error, "", error)
    yield _apart("setns", "setns", _enter_own_network)
    yield _apart("mount bpf", "mount", lambda: _mount_apart("bpf"))
    part: list[str] = []
    made = _apart("mount cgroup2", "mount", lambda: _mount_apart("cgroup2", part))
    yield replace(made, log="".join(part))


def _program(name: str, kind: int, attach_type: int, code: bytes, btf_id: int = 0) -> Trial:
    trial = _bpf(name, lambda: os.close(bpf.prog_load(kind, attach_type, code, "weir_trial", btf_id)))
    if not trial.error:
        return trial
    try:
        os.close(bpf.prog_load(kind, attach_type, code, "weir_trial", btf_id, log=True))
    except OSError as error:
        return Trial(name, "bpf", trial.error, str(error.filename or "").strip(), trial.filtered)
    return trial


def _bpf(name: str, action: Callable[[], object]) -> Trial:
    try:
        action()
    except OSError as error:
        refused = error.errno in (errno.EPERM, errno.EACCES, errno.ENOSYS)
        return Trial(name, "bpf", error.errno or 0, "", filtered("bpf") if refused else 0)
    return Trial(name)


def _perf(name: str) -> Trial:
    try:
        os.close(attach._perf_kprobe("tcp_set_state", False))
    except OSError as error:
        refused = error.errno in (errno.EPERM, errno.EACCES, errno.ENOSYS)
        return Trial(
            name, "perf_event_open", error.errno or 0, "", filtered("perf_event_open") if refused else 0
        )
    return Trial(name, "perf_event_open")


def _apart(name: str, call: str, action: Callable[[], int]) -> Trial:
    """Run in a thread of its own: its namespaces end with it."""
    answer: list[int] = []
    thread = threading.Thread(target=lambda: answer.append(action()))
    thread.start()
    thread.join()
    error = answer[0] if answer else errno.EIO
    return Trial(name, call, error, "", filtered(call) if error else 0)


def _enter_own_network() -> int:
    fd = os.open("/proc/self/ns/net", os.O_RDONLY)
    try:
        return ctypes.get_errno() if _libc.setns(fd, _NEWNET) else 0
    finally:
        os.close(fd)


def _mount_apart(kind: str, part: list[str] | None = None) -> int:
    """Mount over /proc, for this thread alone; ``part`` is told of a cgroup tree without the host's root."""
    if _libc.unshare(_NEWNS) or _libc.mount(b"none", b"/", None, _REC | _PRIVATE, None):
        return ctypes.get_errno()
    if kind == "cgroup2":
        _enter_first_cgroups()
    if _libc.mount(kind.encode(), b"/proc", kind.encode(), 0, None):
        return ctypes.get_errno()
    if part is not None and not root_of_cgroup2(Path("/proc")):
        part.append("a cgroup v2 mounted here")
    return 0


def _enter_first_cgroups() -> None:
    """Have this thread see the host's cgroups through a process that does (in a container: with --pid=host).

    A cgroup v2 mount shows what is below its maker's cgroup namespace (cgroup_namespaces(7)).
    """
    wanted = f"cgroup:[{FIRST['cgroup']}]"
    for process in sorted(p for p in os.listdir("/proc") if p.isdigit()):
        path = f"/proc/{process}/ns/cgroup"
        try:
            if os.readlink(path) != wanted:
                continue
            fd = os.open(path, os.O_RDONLY)
        except OSError:
            continue  # it has ended, or may not be looked at
        _libc.setns(fd, _NEWCGROUP)
        os.close(fd)
        return


def mount(kind: str, point: Path) -> int:
    """Mount a file system (bpf, cgroup2, tracefs), cgroup v2 with the host's root if that can be; errno."""

    def action() -> int:
        if kind == "cgroup2":
            _enter_first_cgroups()
        failed = _libc.mount(kind.encode(), str(point).encode(), kind.encode(), 0, None)
        return ctypes.get_errno() if failed else 0

    return _apart(f"mount {kind}", "mount", action).error


def _charged_map() -> None:
    """Make a map while no memory may be locked: EPERM where maps count as such (before Linux 5.11)."""
    soft, hard = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    resource.setrlimit(resource.RLIMIT_MEMLOCK, (0, hard))
    try:
        bpf.probe()
    finally:
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (soft, hard))


def memlock_is_tiny() -> bool:
    """Whether hardly the smallest map would fit into the memory that this process may lock."""
    return 0 <= resource.getrlimit(resource.RLIMIT_MEMLOCK)[0] < 1 << 16


def memlock_can_grow() -> bool:
    """Whether this process may lock as much memory as it likes, as the loader asks for."""
    before = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    try:
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (resource.RLIM_INFINITY,) * 2)
    except (ValueError, OSError):
        return before[0] == resource.RLIM_INFINITY
    resource.setrlimit(resource.RLIMIT_MEMLOCK, before)
    return True


#: Senseless calls and the errno that the kernel itself has for each, whatever the caller's rights.
_SENSELESS: dict[str, tuple[Callable[[], int], tuple[int, ...]]] = {
    "bpf": (
        lambda: _libc.syscall(machine.number("bpf"), 0x7FFF, bytes(128), 128),
        (errno.EINVAL,),
    ),
    "perf_event_open": (
        lambda: _libc.syscall(machine.number("perf_event_open"), None, 0, 0, -1, 0x7FFFFFFF),
        (errno.EINVAL, errno.EFAULT),
    ),
    "mount": (lambda: _libc.mount(None, None, None, 0, None), (errno.EFAULT, errno.ENOENT, errno.EINVAL)),
    "setns": (lambda: _libc.setns(-1, 0), (errno.EBADF,)),
}


def filtered(call: str) -> int:
    """Errno that a senseless call of this kind gets from somebody before the kernel; 0 if from none.

    ``bpf`` is only told for a process with CAP_BPF or CAP_SYS_ADMIN: others get EPERM for any command
    where kernel.unprivileged_bpf_disabled is set (kernel/bpf/syscall.c, __sys_bpf, before Linux 6.4).
    """
    ctypes.set_errno(0)
    action, own = _SENSELESS[call]
    if machine.refusal() or action() >= 0:
        return 0
    error = ctypes.get_errno()
    return 0 if error in own else error


def root_of_cgroup2(point: Path) -> bool:
    """Whether a cgroup v2 mount shows the host's root: all others have cgroup.events (cgroup-v2.rst)."""
    return not (point / "cgroup.events").exists()
