# SPDX-License-Identifier: Apache-2.0
"""The short-lived process that compiles, loads, attaches, pins and exits (the only user of bcc).

``python -m weir.kernel.loader INSTANCE BPFFS CGROUP2 PARENT`` reads :class:`KernelOptions` as JSON
from standard input and prints one JSON object: what was loaded, or an error with the exit code for it.
It ends with its parent (a process id), so that it is never in the way of the next one.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import resource
import signal
import struct
import sys
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from weir.errors import KernelError, LoadError, PrivilegeError, WeirError
from weir.kernel import attach, bpf, compiler, huffman, netns, plan, refusal, translations
from weir.kernel.btf import FUNC, KERNEL_BTF, TYPEDEF, Btf, BtfError
from weir.kernel.compiled import Cache, Module
from weir.kernel.features import Features
from weir.kernel.layout import READERS
from weir.kernel.options import KernelOptions, fold_prefix
from weir.kernel.pins import Instance
from weir.kernel.plan import Program
from weir.kernel.routes import compile_routes


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
        self.missing: dict[str, str] = {}
        self.log: dict[str, str] = {}
        self.waits: list[str] = []

    def run(self) -> Mapping[str, Any]:
        """Load all; returns the facts for ``kernel.json``."""
        started = time.monotonic()
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_MEMLOCK, (resource.RLIM_INFINITY,) * 2)
        if cause := refusal.of_everything():
            raise PrivilegeError(str(cause))
        variant = self._features.tcp_variant(self._options.variant)
        iterators = self._features.iterators
        no_nat = self._features.conntrack
        defines = plan.defines(variant, self._options, iterators, self._features.cmpxchg, not no_nat)
        built, kept = compiler.build(self._types, defines, self._instance.run, Cache.of_this_host())
        module = Module(built, plan.sizes(self._options))
        compiled = time.monotonic()
        self._fill(module)
        folder = self._instance.prepare()
        for name in plan.PINNED_MAPS:
            if module.map_fd(name) >= 0:
                bpf.pin(module.map_fd(name), str(folder / "maps" / name))
        if self._options.nat != "off":
            self.planes["nat"] = why = no_nat or self._translations(module, folder)
            if why == translations.NOT_YET:  # so there is none, and nothing is missed
                self.planes["nat"] = ""
                self.waits.append("nat")
        if iterators:
            self._discover(module, (plan.LISTENERS,))
        programs = plan.programs(variant, self._options, iterators)
        self.planes |= dict.fromkeys((p.plane for p in programs), "")
        for program in programs:
            if program.hook != "reader" or not self.planes[program.plane]:
                self._install(module, program, folder)
        if self.planes.get("tls") == "" and not self.planes["requests"]:
            self._read_tls(module, defines, folder)
            programs = [*programs, *plan.tls_programs(self._options)]
        self._drop_down(programs, folder)
        if not iterators:
            self.planes["discovery"] = (
                "this kernel has no BPF iterators: connections older than Weir are not found"
            )
        if iterators and not self.planes["tcp"]:
            self._discover(module, plan.DISCOVERY)
        bpf.map_update(module.map_fd("settled"), _u32(0), struct.pack("<Q", 1))
        facts = {
            "digest": self._options.digest(), "variant": variant, "planes": self.planes,
            "types": "btf" if self._types else "headers",
            "verified": self.verified, "refused": self.refused, "missing": self.missing, "log": self.log,
            "kept": kept, "created": time.time(),
            "compile_seconds": compiled - started, "load_seconds": time.monotonic() - compiled,
            "waits": self.waits,
            "options": json.loads(self._options.to_json()),
        }  # fmt: skip
        self._instance.publish(facts)
        return facts

    def _fill(self, module: Module) -> None:
        options, stack = self._options, module.map_fd("free_slots")
        bpf.map_update(module.map_fd("tracked"), _u32(1), struct.pack("<Q", options.connections))
        for index in range(options.slots - 1, 0, -1):  # slot 0 takes what finds no slot
            bpf.map_update(stack, None, _u32(index))
        rows = module.map_fd("free_requests")
        for index in range(options.requests - 1, 0, -1):
            bpf.map_update(rows, None, _u32(index))
        for ports, kind in ((options.opaque_ports, b"\1"), (options.skip_ports, b"\2")):
            for port in ports if options.requests else ():
                bpf.map_update(module.map_fd("request_ports"), struct.pack("<H", port), kind)
        self._fill_routes(module)
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

    def _fill_routes(self, module: Module) -> None:
        if not self._options.requests:
            return
        for (node, word, other), step in compile_routes(self._options.routes).steps.items():
            key = struct.pack("<QII", word, node, other)
            bpf.map_update(
                module.map_fd("route_steps"), key, struct.pack("<HBB", step.node, step.route, step.rest)
            )
        for index, found in enumerate(huffman.table() if self._options.routes else ()):
            value = bytes((found.place, found.byte or 0, found.byte is not None, 0))
            bpf.map_update(module.map_fd("huffman"), _u32(index), value)

    def _translations(self, module: Module, folder: Path) -> str:
        """Learn of translated connections, those that there are too; why not (yet), else ""."""
        possible = {"kprobe": self._features.kprobes, "netfilter": self._features.netfilter_links}
        wanted = self._options.nat
        for way, there in possible.items():
            if not there or wanted not in ("auto", way):
                continue
            program = plan.NAT[way]
            try:
                fd = self._load(module, program)
            except (OSError, KernelError) as error:
                self.refused[program.name] = f"{program.name}: {_why(error)}"
                continue
            bpf.pin(fd, str(folder / "progs" / program.name))
            map_fd = module.map_fd("nat")
            why = translations.begin(program, fd, map_fd, folder, self._options.netns)
            if why in ("", translations.NOT_YET):
                return why
            self.refused[program.name] = why
            (folder / "progs" / program.name).unlink()
        tried = [self.refused[p.name] for p in plan.NAT.values() if p.name in self.refused]
        return "; ".join(tried) or f"this kernel has neither kprobes' nor netfilter's links (--nat {wanted})"

    def _read_tls(self, module: Module, defines: list[str], folder: Path) -> None:
        """Programs for TLS libraries, which the agent attaches as it finds these."""
        try:
            built, _ = compiler.build(self._types, [*defines, "-DWEIR_USER=1"], self._instance.run,
                                      Cache.of_this_host(), "weir_tls.c")  # fmt: skip
            user = Module(built, plan.sizes(self._options), module, own=plan.TLS_MAPS)
        except (OSError, KernelError) as error:
            self.planes["tls"] = self.refused["weir_tls.c"] = f"weir_tls.c: {_why(error)}"
            return
        for name, pinned in plan.TLS_MAPS.items():
            bpf.pin(user.map_fd(name), str(folder / "maps" / pinned))
        for program in plan.tls_programs(self._options):
            self._install(user, program, folder)

    def _install(self, module: Module, program: Program, folder: Path) -> None:
        try:
            fd = self._load(module, program)
            links = attach.attach(program, fd, module.map_fd(program.over), self._targets(program))
            bpf.pin(fd, str(folder / "progs" / program.name))
            if program.hook.endswith("reader"):
                for protocol in program.targets:
                    bpf.map_update(module.map_fd("readers"), _u32(READERS.index(protocol)), _u32(fd))
            for number, link in enumerate(links):
                suffix = f"-{number}" if number else ""
                bpf.pin(link, str(folder / "links" / (program.name + suffix)))
        except (OSError, KernelError) as error:
            why = f"{program.name} ({program.hook} {program.targets[0]}): {_why(error)}"
            (self.missing if _absent(error) else self.refused)[program.name] = why
            if program.needed:
                self.planes[program.plane] = why

    def _drop_down(self, programs: Iterable[Program], folder: Path) -> None:
        """A plane that is down counts nothing rather than half; LoadError where none is up."""
        for program in programs:
            if program.plane in ("tcp", "udp", "requests") and self.planes[program.plane]:
                for pinned in (*(folder / "progs").iterdir(), *(folder / "links").iterdir()):
                    if pinned.name.split("-")[0] == program.name:
                        pinned.unlink()
        if self.planes["tcp"] and self.planes.get("udp", "down"):
            why = self.refused | self.missing
            first = next(p.name for p in programs if p.plane == "tcp" and p.needed and p.name in why)
            raise LoadError(
                f"no plane could be loaded: {why[first]}", first, self.log.get(first, ""),
                {"planes": self.planes, "verified": self.verified, "refused": self.refused,
                 "missing": self.missing, "log": self.log},
            )  # fmt: skip

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
            log = self.log[program.name]
            said = f"the {'verifier' if log else 'kernel'} refuses it ({error.strerror})"
            raise LoadError(str(refusal.of_load(error, log) or said)) from None
        self.verified[program.name] = bpf.program_info(fd).verified_insns
        return fd

    def _btf_id(self, program: Program) -> int:
        names = {"tp_btf": ("btf_trace_", TYPEDEF), "iter": ("bpf_iter_", FUNC)}
        if program.hook not in names:
            return 0
        prefix, kind = names[program.hook]
        found = self._types.find(prefix + program.targets[0], kind) if self._types else 0
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
                if program.targets[0] == "tcp":
                    netns.each(lambda link=link: bpf.iterate(link), self._options.netns)  # type: ignore[misc]
                else:
                    bpf.iterate(link)
            except (OSError, KernelError) as error:
                self.planes["discovery"] = self.refused[program.name] = f"{program.name}: {_why(error)}"
                continue
            os.close(link)
            os.close(fd)
        self.planes.setdefault("discovery", "")


def _kernel_types() -> Btf | None:
    """The kernel's own types; None where it has none, and its installed headers must do."""
    try:
        return Btf.running()
    except FileNotFoundError:
        return None
    except BtfError as error:
        raise KernelError(f"{KERNEL_BTF} cannot be read: {error}; boot a kernel with its own BTF") from None


def _absent(error: OSError | KernelError) -> bool:
    """Whether the kernel has not what the program is for, rather than refusing it."""
    if isinstance(error, OSError):
        return error.errno == errno.ENOENT
    return not isinstance(error, LoadError)


def _why(error: OSError | KernelError) -> str:
    """An error in words; what is refused to this process with its cause."""
    if not isinstance(error, OSError):
        return str(error)
    if error.errno == errno.ENOENT:
        return "this kernel has it not"
    if error.errno in (errno.EPERM, errno.EACCES, errno.ENOSYS):
        return f"cannot be attached: {refusal.of_call(error)}"
    return f"cannot be attached: {error.strerror or error}"


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
            reply |= {"program": error.program, "log": error.log, "facts": error.facts}
        print(json.dumps(reply))
        return error.exit_code
    except OSError as error:
        refused = error.errno in (errno.EPERM, errno.EACCES, errno.ENOSYS)
        why = str(refusal.of_call(error)) if refused else f"the kernel side cannot be loaded: {error}"
        kind = PrivilegeError if refused else KernelError
        print(json.dumps({"error": why, "code": kind.exit_code, "kind": kind.__name__}))
        return kind.exit_code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
