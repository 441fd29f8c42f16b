# SPDX-License-Identifier: Apache-2.0
"""The short-lived process that compiles, loads, attaches, pins and exits (the only user of bcc).

``python -m weir.kernel.loader INSTANCE BPFFS CGROUP2 PARENT`` reads :class:`KernelOptions` as JSON
from standard input and prints one JSON object: what was loaded, or an error with the exit code for it.
It ends with its parent (a process id), so that it is never in the way of the next one.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import signal
import struct
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from weir.errors import KernelError, LoadError, PrivilegeError, WeirError
from weir.kernel import attach, bpf, headers, layout, netns, plan, sources
from weir.kernel.btf import FUNC, KERNEL_BTF, TYPEDEF, Btf, BtfError
from weir.kernel.features import Features
from weir.kernel.options import KernelOptions, fold_prefix
from weir.kernel.pins import HEADERS, Instance
from weir.kernel.plan import Program

_FLAGS = ["-Wno-everything", "-fms-extensions"]


class Module:
    """The compiled programs and their maps."""

    def __init__(self, types: Btf, defines: list[str], scratch: Path) -> None:
        with tempfile.TemporaryDirectory(prefix=HEADERS, dir=scratch) as tree:
            os.environ["BCC_KERNEL_SOURCE"] = tree
            from bcc import BPF, lib  # type: ignore[import-not-found,import-untyped,unused-ignore]

            self._lib = lib
            base = sources.folder()
            wanted = headers.parse_wanted((base / "kernel_types.txt").read_text(encoding="utf-8"))
            shim = (base / "shim/kconfig.h").read_text(encoding="utf-8")
            headers.write_tree(Path(tree), types, wanted, shim, Path(lib._name).read_bytes()
                               if os.path.isabs(lib._name) else _library(lib._name))  # fmt: skip
            text = sources.unit("weir.c") + "\n" + layout.static_asserts()
            os.chdir(tree)  # BCC looks for headers in the current folder first
            try:
                self._bpf = BPF(text=text, cflags=_FLAGS + defines)
            except Exception as error:  # noqa: BLE001 bcc raises nothing narrower
                raise KernelError(f"the BPF programs do not compile here: {error}") from None
            finally:
                os.chdir("/")

    def map_fd(self, name: str) -> int:
        """A map's fd; -1 if this build has none of that name."""
        return int(self._lib.bpf_table_fd(self._bpf.module, name.encode()))

    def code(self, name: str) -> bytes:
        """A program's instructions."""
        start = self._lib.bpf_function_start(self._bpf.module, name.encode())
        size = self._lib.bpf_function_size(self._bpf.module, name.encode())
        return ctypes.string_at(start, size) if start else b""


def _library(name: str) -> bytes:
    """The bytes of a shared library that is already in this process."""
    for line in Path("/proc/self/maps").read_text(encoding="utf-8").splitlines():
        path = line.split(maxsplit=5)[-1]
        if "/" + name.split(".so", maxsplit=1)[0] + ".so" in path:
            return Path(path).read_bytes()
    raise KernelError(f"{name} is not where the loader can read it")


class Loader:
    """Loads one variant into an instance's fresh folder."""

    def __init__(self, instance: Instance, options: KernelOptions, cgroup2: Path) -> None:
        self._instance = instance
        self._options = options
        self._cgroup2 = cgroup2
        self._types = _kernel_types()
        self._features = Features(self._types)
        self.planes: dict[str, str] = {}
        self.verified: dict[str, int] = {}
        self.refused: dict[str, str] = {}
        self.log: dict[str, str] = {}

    def run(self) -> Mapping[str, Any]:
        """Load all; returns the facts for ``kernel.json``."""
        started = time.monotonic()
        variant = self._features.tcp_variant(self._options.variant)
        iterators = self._features.iterators
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_MEMLOCK, (resource.RLIM_INFINITY,) * 2)
        bpf.probe()
        defines = plan.defines(variant, self._options, iterators, self._features.cmpxchg)
        module = Module(self._types, defines, self._instance.run)
        compiled = time.monotonic()
        self._fill(module)
        folder = self._instance.prepare()
        for name in plan.PINNED_MAPS:
            if module.map_fd(name) >= 0:
                bpf.pin(module.map_fd(name), str(folder / "maps" / name))
        if iterators:
            self._discover(module, (plan.LISTENERS,))
        programs = plan.programs(variant, self._options, iterators)
        self.planes |= dict.fromkeys((p.plane for p in programs), "")
        for program in programs:
            self._install(module, program, folder)
        if self.planes.get("tcp") and self.planes.get("udp", "down"):
            name = next(iter(self.refused))
            raise LoadError(f"no plane could be loaded: {self.refused[name]}", name, self.log.get(name, ""))
        if iterators:
            self._discover(module, plan.DISCOVERY)
        bpf.map_update(module.map_fd("settled"), _u32(0), struct.pack("<Q", 1))
        facts = {
            "digest": self._options.digest(), "variant": variant, "planes": self.planes,
            "verified": self.verified, "refused": self.refused, "log": self.log,
            "compile_seconds": compiled - started, "load_seconds": time.monotonic() - compiled,
            "options": json.loads(self._options.to_json()),
        }  # fmt: skip
        self._instance.publish(facts)
        return facts

    def _fill(self, module: Module) -> None:
        options, stack = self._options, module.map_fd("free_slots")
        for index in range(options.slots - 1, 0, -1):  # slot 0 takes what finds no slot
            bpf.map_update(stack, None, _u32(index))
        for fold in options.folds:
            bits, address = fold_prefix(fold.network)
            value = bytes((fold.source_bits, fold.destination_bits, 0, 0))
            bpf.map_update(module.map_fd("folds"), _u32(bits) + address, value)
        for inode in options.netns:
            bpf.map_update(module.map_fd("scope_netns"), _u32(inode), b"\1")
        for identity, _ in options.cgroups:
            bpf.map_update(module.map_fd("scope_cgroup"), struct.pack("<Q", identity), _u32(1))
        for port in options.ports:
            bpf.map_update(module.map_fd("scope_port"), struct.pack("<H", port), b"\1")

    def _install(self, module: Module, program: Program, folder: Path) -> None:
        try:
            fd = self._load(module, program)
            links = attach.attach(program, fd, module.map_fd(program.over), self._targets(program))
            bpf.pin(fd, str(folder / "progs" / program.name))
            for number, link in enumerate(links):
                suffix = f"-{number}" if number else ""
                bpf.pin(link, str(folder / "links" / (program.name + suffix)))
        except (OSError, KernelError) as error:
            why = f"{program.name} ({program.hook} {program.targets[0]}): {error}"
            self.refused[program.name] = why
            if program.needed:
                self.planes[program.plane] = why

    def _targets(self, program: Program) -> tuple[str, ...]:
        if program.hook != "cgroup":
            return program.targets
        scoped = tuple(path for _, path in self._options.cgroups)
        return scoped or (str(self._cgroup2),)

    def _load(self, module: Module, program: Program) -> int:
        code = module.code(program.code or program.name)
        kind, expected = attach.program_type(program)
        btf_id = self._btf_id(program)
        try:
            fd = bpf.prog_load(kind, expected, code, program.name, btf_id)
        except OSError as error:
            self.log[program.name] = self._verifier_log(program, code, btf_id)
            if error.errno == 1:
                raise KernelError(f"refused ({error.strerror}): needs CAP_BPF and CAP_PERFMON") from None
            raise
        self.verified[program.name] = bpf.program_info(fd).verified_insns
        return fd

    def _btf_id(self, program: Program) -> int:
        names = {"tp_btf": ("btf_trace_", TYPEDEF), "iter": ("bpf_iter_", FUNC)}
        if program.hook not in names:
            return 0
        prefix, kind = names[program.hook]
        found = self._types.find(prefix + program.targets[0], kind)
        if not found:
            raise KernelError(f"this kernel has no {program.hook} {program.targets[0]}")
        return found

    @staticmethod
    def _verifier_log(program: Program, code: bytes, btf_id: int) -> str:
        kind, expected = attach.program_type(program)
        try:
            os.close(bpf.prog_load(kind, expected, code, program.name, btf_id, log=True))
        except OSError as error:
            return "\n".join(str(error.filename or "").splitlines()[-20:])
        return ""

    def _discover(self, module: Module, programs: Iterable[Program]) -> None:
        """Find the sockets that were there before (bpf/discover.h)."""
        for program in programs:
            try:
                fd = self._load(module, program)
                link = bpf.link_iterator(fd)
            except (OSError, KernelError) as error:
                self.planes["discovery"] = self.refused[program.name] = f"{program.name}: {error}"
                continue
            if program.targets[0] == "tcp":
                netns.each(lambda link=link: bpf.iterate(link), self._options.netns)  # type: ignore[misc]
            else:
                bpf.iterate(link)
            os.close(link)
            os.close(fd)
        self.planes.setdefault("discovery", "")


def _kernel_types() -> Btf:
    try:
        return Btf.from_file()
    except BtfError as error:
        raise KernelError(f"{KERNEL_BTF} cannot be read: {error}; boot a kernel with its own BTF") from None


def _u32(value: int) -> bytes:
    return struct.pack("<I", value)


def _end_with(parent: int) -> None:
    """Have the kernel kill this process when its parent ends (prctl(2), PR_SET_PDEATHSIG)."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        sys.exit(1)  # it ended before that


def main(argv: list[str]) -> int:
    """Entry point of the process; see the module's docstring."""
    _end_with(int(argv[3]))
    instance = Instance(argv[0], Path(argv[1]))
    try:
        options = KernelOptions.from_json(sys.stdin.read())
        with instance.lock("load"):
            print(json.dumps(Loader(instance, options, Path(argv[2])).run()))
        return 0
    except WeirError as error:
        reply = {"error": str(error), "code": error.exit_code, "kind": type(error).__name__}
        if isinstance(error, LoadError):
            reply |= {"program": error.program, "log": error.log}
        print(json.dumps(reply))
        return error.exit_code
    except PermissionError as error:
        why = (
            f"the kernel refuses BPF to this process ({error.strerror}): it needs CAP_BPF, CAP_PERFMON,"
            " CAP_NET_ADMIN and CAP_SYS_ADMIN, as docker run --privileged gives"
        )
        print(json.dumps({"error": why, "code": PrivilegeError.exit_code, "kind": "PrivilegeError"}))
        return PrivilegeError.exit_code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
