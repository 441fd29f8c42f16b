# SPDX-License-Identifier: Apache-2.0
"""Compiled programs as data: instructions, which of them name a map, and what those maps are.

They are kept between starts, since compiling takes most of a start's time and memory: a file each under
``/var/cache/weir/programs`` (``WEIR_CACHE_DIR``; empty: nothing is kept), by a digest of all that they are
made from. Only files that nobody but root can write are used, and the kernel verifies what comes from them
as it does all programs.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import stat
import struct
import zlib
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from weir.errors import KernelError
from weir.kernel import bpf

KEPT = 32  # programs of so many builds; one takes about 60 kB
_SIZE = 1 << 24  # of a file that is read
_LD_IMM64, _PSEUDO_MAP_FD = 0x18, 1
_SK_STORAGE = 24


@dataclass(frozen=True)
class MapSpec:
    """What BPF_MAP_CREATE wants to know; sizes in bytes (per-CPU maps: of one CPU's value)."""

    name: str
    kind: int
    key_size: int
    value_size: int
    max_entries: int
    flags: int


@dataclass(frozen=True)
class Program:
    """Instructions in which ``maps[i]`` is named by the instruction number ``at``, for each (at, i)."""

    code: bytes
    maps: Sequence[tuple[int, int]]


@dataclass(frozen=True)
class Compiled:
    """All programs of one build and the maps that they share."""

    maps: Sequence[MapSpec]
    programs: Mapping[str, Program]

    def to_bytes(self) -> bytes:
        """One file's content, with a check sum in front."""
        programs = {
            name: {"code": base64.b64encode(p.code).decode(), "maps": p.maps}
            for name, p in self.programs.items()
        }
        text = json.dumps({"maps": [asdict(m) for m in self.maps], "programs": programs})
        packed = zlib.compress(text.encode(), 1)
        return hashlib.sha256(packed).digest() + packed

    @staticmethod
    def from_bytes(data: bytes) -> Compiled:
        """The inverse of :meth:`to_bytes`; ValueError where it is not whole."""
        if hashlib.sha256(data[32:]).digest() != data[:32]:
            raise ValueError("the check sum differs")
        raw = json.loads(zlib.decompress(data[32:]))
        return Compiled(
            tuple(MapSpec(**m) for m in raw["maps"]),
            {
                name: Program(base64.b64decode(p["code"]), [(at, i) for at, i in p["maps"]])
                for name, p in raw["programs"].items()
            },
        )


def unlinked(code: bytes, fds: Mapping[int, int]) -> Program:
    """A program without the maps' descriptors (descriptor → index), which are this process's."""
    found, skip = [], False
    for at in range(len(code) // 8):
        opcode, registers, _, imm = struct.unpack_from("<BBhi", code, 8 * at)
        if not skip and opcode == _LD_IMM64 and registers >> 4 == _PSEUDO_MAP_FD:
            found.append((at, fds[imm]))
        skip = not skip and opcode == _LD_IMM64  # its second half is no instruction
    plain = bytearray(code)
    for at, _ in found:
        struct.pack_into("<i", plain, 8 * at + 4, 0)
    return Program(bytes(plain), found)


class Module:
    """Compiled programs with maps of their own, which this makes; OSError where the kernel refuses one.

    Maps in ``sizes`` have so many entries. Those that ``other`` has by the same name are its, but for
    ``own``; KernelError where they differ.
    """

    def __init__(
        self,
        compiled: Compiled,
        sizes: Mapping[str, int],
        other: Module | None = None,
        own: Collection[str] = (),
    ) -> None:
        self._programs = compiled.programs
        self._names = [m.name for m in compiled.maps]
        self._specs = {m.name: _sized(m, sizes) for m in compiled.maps}
        shared = other._specs.keys() & self._specs.keys() - set(own) if other else ()
        if other and (wrong := sorted(n for n in shared if other._specs[n] != self._specs[n])):
            raise KernelError(f"maps of one name differ between two builds: {', '.join(wrong)}")
        self._fds = {
            name: other.map_fd(name) if other and name in shared else _create(spec)
            for name, spec in self._specs.items()
        }

    def map_fd(self, name: str) -> int:
        """A map's fd; -1 if this build has none of that name."""
        return self._fds.get(name, -1)

    def code(self, name: str) -> bytes:
        """A program's instructions; empty if this build has none of that name."""
        program = self._programs.get(name)
        if program is None:
            return b""
        linked = bytearray(program.code)
        for at, index in program.maps:
            struct.pack_into("<i", linked, 8 * at + 4, self._fds[self._names[index]])
        return bytes(linked)


def _sized(spec: MapSpec, sizes: Mapping[str, int]) -> MapSpec:
    """A socket's storage is with the socket: it has no size (bpf_local_storage_map_alloc_check)."""
    wanted = 0 if spec.kind == _SK_STORAGE else sizes.get(spec.name, 0)
    return replace(spec, max_entries=wanted) if wanted else spec


def _create(spec: MapSpec) -> int:
    btf = bpf.btf_load(_storage_types(spec.value_size)) if spec.kind == _SK_STORAGE else 0
    try:
        return bpf.map_create(
            spec.kind, spec.key_size, spec.value_size, spec.max_entries, spec.flags, spec.name, btf
        )
    finally:
        if btf:
            os.close(btf)


def _storage_types(size: int) -> bytes:
    """Type 1 the key (int), type 3 the value (bytes), which the kernel wants of a socket's storage
    (bpf_local_storage_map_check_btf; the format: Documentation/bpf/btf.rst).
    """
    names = b"\0int\0char\0"
    types = struct.pack("<IIII", 1, 1 << 24, 4, 1 << 24 | 32) + struct.pack("<IIII", 5, 1 << 24, 1, 8)
    types += struct.pack("<IIIIII", 0, 3 << 24, 0, 2, 1, size)
    header = struct.pack("<HBBIIIII", 0xEB9F, 1, 0, 24, 0, len(types), len(types), len(names))
    return header + types + names


class Cache:
    """Builds that are kept in a folder; one that cannot be used keeps nothing."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder

    @staticmethod
    def of_this_host() -> Cache:
        """The folder that the environment names."""
        name = os.environ.get("WEIR_CACHE_DIR", "/var/cache/weir/programs")
        return Cache(Path(name) if name else None)

    def read(self, digest: str) -> Compiled | None:
        """A build; None where it is not known, not whole or not safe to use."""
        if self._folder is None:
            return None
        path = self._folder / f"{digest}.programs"
        try:
            if not _safe(os.lstat(self._folder)):
                return None
            with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb") as file:
                if not _safe(os.fstat(file.fileno())):
                    return None
                compiled = Compiled.from_bytes(file.read(_SIZE))
            os.utime(path)  # it was of use: others go first
        except (OSError, ValueError, KeyError, TypeError, zlib.error):
            return None
        return compiled

    def write(self, digest: str, compiled: Compiled) -> None:
        """Keep a build, the newest few with it."""
        if self._folder is None:
            return
        fresh = self._folder / f".{digest}.{os.getpid()}"
        with suppress(OSError):  # a read-only file system: the next start compiles again
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            fresh.write_bytes(compiled.to_bytes())
            fresh.rename(self._folder / f"{digest}.programs")
        with suppress(OSError):
            kept = sorted(self._folder.glob("*.programs"), key=lambda path: -path.stat().st_mtime)
            stale = [
                path
                for path in self._folder.glob(".*")
                if path.stat().st_mtime < kept[0].stat().st_mtime - 60
            ]
            for path in (*kept[KEPT:], *stale):
                path.unlink(missing_ok=True)


def _safe(info: os.stat_result) -> bool:
    return info.st_uid == os.geteuid() and not info.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
