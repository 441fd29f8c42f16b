# SPDX-License-Identifier: Apache-2.0
"""The bpf(2) system call, as far as Weir uses it (include/uapi/linux/bpf.h, union bpf_attr).

All functions raise OSError with the kernel's errno. File descriptors are plain ints that the
caller closes.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import struct
from dataclasses import dataclass
from typing import Any

from weir.kernel import machine

MAP_CREATE, MAP_LOOKUP, MAP_UPDATE, MAP_DELETE, MAP_NEXT_KEY = 0, 1, 2, 3, 4
PROG_LOAD, OBJ_PIN, OBJ_GET, OBJ_INFO = 5, 6, 7, 15
RAW_TRACEPOINT_OPEN, BTF_LOAD, MAP_LOOKUP_BATCH, LINK_CREATE = 17, 18, 24, 28
ENABLE_STATS, ITER_CREATE, PROG_TEST_RUN, PROG_QUERY = 32, 33, 10, 16

KPROBE, CGROUP_SKB, CGROUP_SOCK, RAW_TRACEPOINT, TRACING = 2, 8, 9, 17, 26
CGROUP_INGRESS, CGROUP_EGRESS, CGROUP_SOCK_CREATE, TRACE_RAW_TP, TRACE_ITER = 0, 1, 2, 23, 28
NETFILTER, NETFILTER_LINK = 32, 45
NOEXIST = 1

_INFO = struct.Struct("<II8sIIQQQIIQ16sIIQQIIQQIIQIIQQIIIIQQQQIII")
_MAP_INFO = struct.Struct("<6I")


def call(command: int, attr: bytes) -> int:
    """Run one command; ``attr`` is padded with zeros to the size that all kernels know."""
    buffer = ctypes.create_string_buffer(attr.ljust(128, b"\0"), max(128, len(attr)))
    return machine.syscall("bpf", command, buffer, len(buffer))


def _in(data: bytes) -> tuple[ctypes.Array[ctypes.c_char], int]:
    buffer = ctypes.create_string_buffer(data, len(data))
    return buffer, ctypes.addressof(buffer)


def probe() -> None:
    """Make the smallest map and drop it; PermissionError where this process may not use bpf(2)."""
    os.close(call(MAP_CREATE, struct.pack("<IIII", 2, 4, 4, 1)))


def map_create(
    kind: int, key_size: int, value_size: int, max_entries: int, flags: int, name: str, btf: int = 0
) -> int:
    """Make a map; of ``btf``, an fd, type 1 is the key's and type 3 the value's."""
    types = (btf, 1, 3) if btf else (0, 0, 0)
    sizes = (kind, key_size, value_size, max_entries, flags)
    return call(MAP_CREATE, struct.pack("<IIIIIII16sIIII", *sizes, 0, 0, name.encode()[:15], 0, *types))


def map_info(fd: int) -> tuple[int, int, int, int, int]:
    """A map's type, sizes of key and value, most entries, flags (struct bpf_map_info)."""
    kind, _, *sizes = _info(fd, _MAP_INFO, bytes(_MAP_INFO.size))
    return (kind, *sizes)


def btf_load(data: bytes) -> int:
    """Give type information to the kernel; its fd."""
    keep, at = _in(data)
    fd = call(BTF_LOAD, struct.pack("<QQIIII", at, 0, len(data), 0, 0, 0))
    del keep
    return fd


def map_lookup(fd: int, key: bytes, size: int) -> bytes:
    """One value; ``size`` is that of the value (per-CPU maps: times possible CPUs)."""
    keep, key_at = _in(key)
    value = ctypes.create_string_buffer(size)
    call(MAP_LOOKUP, struct.pack("<IIQQQ", fd, 0, key_at, ctypes.addressof(value), 0))
    del keep
    return value.raw


def map_update(fd: int, key: bytes | None, value: bytes, flags: int = 0) -> None:
    """Set a value; ``key`` None pushes onto a stack or queue."""
    keep_key, key_at = _in(key) if key is not None else (None, 0)
    keep_value, value_at = _in(value)
    call(MAP_UPDATE, struct.pack("<IIQQQ", fd, 0, key_at, value_at, flags))
    del keep_key, keep_value


def map_delete(fd: int, key: bytes) -> None:
    """Remove a key; FileNotFoundError if it is not there."""
    keep, key_at = _in(key)
    call(MAP_DELETE, struct.pack("<IIQQ", fd, 0, key_at, 0))
    del keep


def map_keys(fd: int, size: int, most: int) -> list[bytes]:
    """Up to ``most`` keys of ``size`` bytes; of a map that changes meanwhile, some twice or not at all."""
    key = ctypes.create_string_buffer(size)
    following = ctypes.create_string_buffer(size)
    at = 0
    found: list[bytes] = []
    with contextlib.suppress(FileNotFoundError):  # the end was reached
        while len(found) < most:
            call(MAP_NEXT_KEY, struct.pack("<IIQQ", fd, 0, at, ctypes.addressof(following)))
            found.append(following.raw)
            ctypes.memmove(key, following, size)
            at = ctypes.addressof(key)
    return found


def map_batch(fd: int, key_size: int, value_size: int, count: int) -> tuple[bytes, bytes, int]:
    """Up to ``count`` entries of a hash in one call (Linux 5.6): keys, values, entries read."""
    keys, values = (
        ctypes.create_string_buffer(key_size * count),
        ctypes.create_string_buffer(value_size * count),
    )
    cursor = ctypes.create_string_buffer(max(key_size, 8))
    attr = struct.pack(
        "<QQQQIIQQ", 0, ctypes.addressof(cursor), ctypes.addressof(keys), ctypes.addressof(values),
        count, fd, 0, 0,
    )  # fmt: skip
    buffer = ctypes.create_string_buffer(attr, 128)
    with contextlib.suppress(FileNotFoundError):  # the end was reached
        machine.syscall("bpf", MAP_LOOKUP_BATCH, buffer, 128)
    read = int(struct.unpack_from("<I", buffer.raw, 32)[0])
    return keys.raw[: read * key_size], values.raw[: read * value_size], read


def prog_load(kind: int, attach: int, code: bytes, name: str, btf_id: int = 0, log: bool = False) -> int:
    """Load a program (insns as bytes).

    With ``log`` a refusal's OSError carries the verifier's log as ``filename``.
    """
    keep_code, code_at = _in(code)
    keep_licence, licence_at = _in(b"Dual BSD/GPL\0")
    size = (1 << 24) - 1 if log else 0
    text = ctypes.create_string_buffer(size) if log else None
    attr = struct.pack(
        "<IIQQIIQII16sIIIIQIIQII",
        kind, len(code) // 8, code_at, licence_at, 1 if log else 0, size,
        ctypes.addressof(text) if text else 0, 0, 0, name.encode()[:15], 0, attach,
        0, 0, 0, 0, 0, 0, 0, btf_id,
    )  # fmt: skip
    try:
        return call(PROG_LOAD, attr)
    except OSError as error:
        if text is None:
            raise
        raise OSError(error.errno, error.strerror, text.value.decode("utf-8", "replace")) from None
    finally:
        del keep_code, keep_licence


def raw_tracepoint_open(prog: int, name: str = "") -> int:
    """Attach a raw tracepoint program, or a BTF-typed one (which knows its name); a link's fd."""
    keep, at = _in(name.encode() + b"\0")
    fd = call(RAW_TRACEPOINT_OPEN, struct.pack("<QI", at if name else 0, prog))
    del keep
    return fd


def link_cgroup(prog: int, cgroup: int, attach: int) -> int:
    """Attach to a cgroup v2 folder's fd (Linux 5.7); runs beside the programs of others."""
    return call(LINK_CREATE, struct.pack("<IIII", prog, cgroup, attach, 0))


def attached(cgroup: int, attach: int, flags: int) -> int:
    """How many programs a cgroup v2 folder's fd has at a hook (BPF_PROG_QUERY, Linux 4.15)."""
    buffer = ctypes.create_string_buffer(
        struct.pack("<IIII", cgroup, attach, flags, 0).ljust(128, b"\0"), 128
    )
    machine.syscall("bpf", PROG_QUERY, buffer, len(buffer))
    return int(struct.unpack_from("<I", buffer, 24)[0])


def link_iterator(prog: int, map_fd: int = 0) -> int:
    """Make an iterator link, over a map's elements where the target wants one."""
    keep, at = _in(struct.pack("<I", map_fd))
    info = (at, 4) if map_fd else (0, 0)
    fd = call(LINK_CREATE, struct.pack("<IIIIQI", prog, 0, TRACE_ITER, 0, *info))
    del keep
    return fd


def link_netfilter(prog: int, family: int, hook: int, priority: int) -> int:
    """Hook a program into this thread's network namespace (Linux 6.4)."""
    return call(LINK_CREATE, struct.pack("<IIIIIIiI", prog, 0, NETFILTER_LINK, 0, family, hook, priority, 0))


def iterate(link: int, limit: int = 1 << 62) -> bytes:
    """Run an iterator once and return what it wrote, at most about ``limit`` bytes."""
    fd = call(ITER_CREATE, struct.pack("<II", link, 0))
    parts, size = [], 0
    try:
        while size < limit:
            try:
                part = os.read(fd, 1 << 20)
            except BlockingIOError:  # a million objects without output: the kernel takes a breath
                continue
            if not part:
                break
            parts.append(part)
            size += len(part)
    finally:
        os.close(fd)
    return b"".join(parts)


def run_raw(prog: int, *args: int) -> int:
    """Run a raw tracepoint program once with these arguments (Linux 5.10); its return value."""
    keep, at = _in(struct.pack(f"<{len(args)}Q", *args))
    attr = struct.pack("<IIIIQQIIIIQQII", prog, 0, 0, 0, 0, 0, 0, 0, 8 * len(args), 0, at, 0, 0, 0)
    buffer = ctypes.create_string_buffer(attr, 128)
    machine.syscall("bpf", PROG_TEST_RUN, buffer, 128)
    del keep
    return int(struct.unpack_from("<I", buffer.raw, 4)[0])


def pin(fd: int, path: str) -> None:
    """Pin a map, program or link under bpffs."""
    keep, at = _in(path.encode() + b"\0")
    call(OBJ_PIN, struct.pack("<QII", at, fd, 0))
    del keep


def get(path: str) -> int:
    """Open a pin."""
    keep, at = _in(path.encode() + b"\0")
    fd = call(OBJ_GET, struct.pack("<QII", at, 0, 0))
    del keep
    return fd


def enable_stats() -> int:
    """Turn run-time statistics on while the returned fd is open (Linux 5.8); costs about 20 ns a run."""
    return call(ENABLE_STATS, struct.pack("<I", 0))


@dataclass(frozen=True)
class ProgramInfo:
    """Part of ``struct bpf_prog_info``; what an older kernel does not know is 0."""

    name: str
    kind: int
    run_ns: int
    runs: int
    recursion_misses: int
    verified_insns: int
    xlated_bytes: int


def object_id(fd: int) -> int:
    """The kernel's number of a map, a program or a link: the second word of its ``struct bpf_…_info``."""
    return int(_info(fd, struct.Struct("<II"), bytes(8))[1])


def program_info(fd: int) -> ProgramInfo:
    """Statistics and sizes of a program."""
    f = _info(fd, _INFO, bytes(_INFO.size))
    name = bytes(f[11]).split(b"\0")[0].decode()
    return ProgramInfo(name, f[0], f[32], f[33], f[34], f[35], f[4])


def program_code(fd: int) -> bytes:
    """The instructions of a loaded program as the kernel runs them (before the JIT)."""
    size = program_info(fd).xlated_bytes
    code = ctypes.create_string_buffer(size)
    request = bytearray(_INFO.size)
    struct.pack_into("<I", request, 20, size)
    struct.pack_into("<Q", request, 32, ctypes.addressof(code))
    _info(fd, _INFO, bytes(request))
    return code.raw


def _info(fd: int, form: struct.Struct, request: bytes) -> tuple[Any, ...]:
    buffer = ctypes.create_string_buffer(request, form.size)
    call(OBJ_INFO, struct.pack("<IIQ", fd, form.size, ctypes.addressof(buffer)))
    return form.unpack(buffer.raw)
