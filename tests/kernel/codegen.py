# SPDX-License-Identifier: Apache-2.0
"""What BCC makes of Weir's programs for another kernel, by that kernel's BTF; nothing is loaded.

``python -m tests.kernel.codegen VMLINUZ [HEADERS]`` prints a JSON object for :class:`Generated`; with the
folder of its header packages (where linux-headers-… lie) the code is made from these. It is a process of
its own, since BCC stays in memory.
"""

from __future__ import annotations

import ctypes
import gzip
import json
import os
import re
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from weir.kernel import btf, headers, installed, layout, plan, sources
from weir.kernel.btf import Btf, Member
from weir.kernel.compiler import FLAGS, messages
from weir.kernel.features import Features
from weir.kernel.options import KernelOptions

_UNPACK = {b"\x02\x21": "lz4", b"\x28\xb5": "zstd", b"\xfd7": "xz", b"\x1f\x8b": "gzip"}
_LOADS = {0x71: 1, 0x69: 2, 0x61: 4, 0x79: 8}
_CALL, _ATOMIC, _ADD, _LOAD_64 = 0x85, (0xC3, 0xDB), 0x07, 0x18


@dataclass
class Generated:
    """By variant: programs without code, calls and atomics that the kernel lacks; offsets that differ.

    ``members`` is how many offsets were compared; ``arguments``, where in struct pt_regs a kprobe's first
    two arguments are read; ``conntrack``, why connection tracking cannot be read.
    """

    variants: list[str] = field(default_factory=list)
    missing: dict[str, list[str]] = field(default_factory=dict)
    unknown: dict[str, list[str]] = field(default_factory=dict)
    members: int = 0
    conntrack: str = ""
    arguments: list[int] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)


def kernel_btf(vmlinuz: Path) -> bytes:
    """BTF of an image; BCC is told by ``ARCH`` when that is not for x86-64.

    arm64 has no ELF file but the bare code and data (Documentation/arch/arm64/booting.rst: magic number at
    56), in which BTF is found by its head: the longest, since there may be some of nothing.
    """
    image = vmlinuz.read_bytes()
    if image[:2] == b"\x1f\x8b":
        image = gzip.decompress(image)
    if image[56:60] != b"ARM\x64":
        return section(unpack(vmlinuz), b".BTF")
    os.environ["ARCH"] = "arm64"
    heads = (found.start() for found in re.finditer(re.escape(struct.pack("<HBBI", 0xEB9F, 1, 0, 24)), image))
    return max((_blob(image[at:]) for at in heads), key=len)


def _blob(data: bytes) -> bytes:
    """As long as the head of BTF says; nothing where that cannot be (types first, then strings)."""
    types_at, types, strings_at, strings = struct.unpack_from("<IIII", data, 8)
    whole = 24 + strings_at + strings
    return data[:whole] if (types_at, types) == (0, strings_at) and whole <= len(data) else b""


def unpack(vmlinuz: Path) -> bytes:
    """The ELF file in a bzImage (Documentation/arch/x86/boot.rst: payload_offset, payload_length)."""
    image = vmlinuz.read_bytes()
    offset, length = struct.unpack_from("<II", image, 0x248)
    start = ((image[0x1F1] or 4) + 1) * 512 + offset
    payload = image[start : start + length]
    # the size that is appended is none of the compressor's: it complains, after all is out
    command = [_UNPACK[payload[:2]], "-dc"]
    elf = subprocess.run(command, input=payload, capture_output=True, check=False).stdout
    if elf[:4] != b"\x7fELF":
        raise ValueError(f"{vmlinuz}: {command[0]} gave no ELF file")
    return elf


def module_image(path: Path) -> bytes:
    """A kernel module, unpacked."""
    data = path.read_bytes()
    if data[:4] == b"\x7fELF":
        return data
    command = ["xz" if path.suffix == ".xz" else "zstd", "-dc"]
    return subprocess.run(command, input=data, capture_output=True, check=True).stdout


def section(elf: bytes, name: bytes) -> bytes:
    """A section of a 64-bit little-endian ELF file."""
    (table,), (size, count, names) = struct.unpack_from("<Q", elf, 40), struct.unpack_from("<HHH", elf, 58)

    def header(index: int) -> tuple[int, int, int]:
        at, offset, length = struct.unpack_from("<I20xQQ", elf, table + index * size)
        return at, offset, length

    _, strings, _ = header(names)
    for index in range(count):
        at, offset, length = header(index)
        if _name(elf, strings + at) == name:
            return elf[offset : offset + length]
    raise ValueError(f"no section {name.decode()}")


def _name(elf: bytes, at: int) -> bytes:
    return elf[at : elf.index(b"\0", at)]


class Offline(Features):
    """Features of a kernel that does not run here: what needs a trial load is told by its BTF."""

    @property
    def cmpxchg(self) -> bool:
        """Came one release after socket storage for tracing, and one before links of perf events."""
        return bool(self._types.find("bpf_sk_storage_get_tracing", btf.FUNC))


class WithoutBtf(Offline):
    """As if it had none; its tracepoints are told by BTF all the same."""

    conntrack = "no BTF"

    def iterator(self, target: str) -> bool:  # noqa: ARG002
        return False


class Tree:
    """One kernel's header tree, and BCC on top of it."""

    def __init__(self, types: Btf, folder: Path) -> None:
        os.environ["BCC_KERNEL_SOURCE"] = str(folder)
        from bcc import BPF, lib  # type: ignore[import-not-found,import-untyped,unused-ignore]

        base = sources.folder()
        self._bpf, self._lib, self.flags = BPF, lib, list[str]()
        self.wanted = headers.wanted()
        shim = (base / "shim/kconfig.h").read_text(encoding="utf-8")
        headers.write_tree(folder, types, self.wanted, shim, _libbcc())
        os.chdir(folder)

    def compile(self, text: str, defines: list[str], names: list[str]) -> dict[str, bytes]:
        """Instructions by function; empty where there is none."""
        module = self._bpf(text=text, cflags=[*FLAGS, *self.flags, *defines])
        found = {}
        for name in names:
            start = self._lib.bpf_function_start(module.module, name.encode())
            size = self._lib.bpf_function_size(module.module, name.encode())
            found[name] = ctypes.string_at(start, size) if start else b""
        return found


class Installed(Tree):
    """The same from header packages: Debian has two, of which BCC finds the second one by a link."""

    def __init__(self, folder: Path) -> None:
        common = next(folder.glob("linux-headers-*-common"))
        own = next(p for p in folder.iterdir() if p != common and p.name.startswith("linux-headers-"))
        os.environ["BCC_KERNEL_SOURCE"] = str(own)
        from bcc import BPF, lib  # type: ignore[import-not-found,import-untyped,unused-ignore]

        self._bpf, self._lib, self.wanted = BPF, lib, headers.wanted()
        parts = "arch/x86/include", "include", "arch/x86/include/uapi", "include/uapi"
        self.flags = [f"-I{common}/{part}" for part in parts]
        os.chdir(common)
        messages_of = partial(messages, BPF)
        self.flags += installed.flags(self.wanted, lambda text, flags: messages_of(text, self.flags + flags))


def _libbcc() -> bytes:
    maps = Path("/proc/self/maps").read_text(encoding="utf-8")
    return Path(next(line.split()[-1] for line in maps.splitlines() if "/libbcc.so" in line)).read_bytes()


def _instructions(code: bytes) -> Iterator[tuple[int, int, int, int]]:
    """(operation, registers, offset, immediate), without second halves of 64-bit immediates."""
    half = False
    for row in struct.iter_unpack("<BBhi", code):
        if not half:
            yield row
        half = not half and row[0] == _LOAD_64


def unknown(code: bytes, helpers: Mapping[int, str], fetching: bool) -> set[str]:
    """Helpers and atomics in the code that the kernel lacks."""
    found = set()
    for operation, registers, _, immediate in _instructions(code):
        if operation == _CALL and registers >> 4 == 0 and not helpers.get(immediate):
            found.add(f"helper {immediate}")
        if operation in _ATOMIC and immediate and not fetching:
            found.add(f"atomic {immediate:#x}")
    return found


def check_programs(tree: Tree, types: Btf, variant: str, features: Features, into: Generated) -> None:
    """Compile everything of a variant as the loader does."""
    options = KernelOptions(variant=variant, tls=64, routes=("/users/{id}",))
    conntrack = not features.conntrack
    defines = plan.defines(variant, options, features.iterators, features.cmpxchg, conntrack)
    nat = [p for way, p in plan.NAT.items() if conntrack and (way == "kprobe" or features.netfilter_links)]
    wanted = [
        *plan.programs(variant, options, features.iterators),
        *nat,
        *(plan.DISCOVERY if features.iterators else ()),
    ]
    codes = tree.compile(_unit("weir.c"), defines, [p.code or p.name for p in wanted])
    if not into.variants:  # the same for all
        names = [p.code or p.name for p in plan.tls_programs(options)]
        user = tree.compile(_unit("weir_tls.c"), [*defines, "-DWEIR_USER=1"], names)
        codes |= {f"weir_tls.c: {name}": code for name, code in user.items()}
    helpers = {number: name for name, number in types.enum("bpf_func_id").items() if number > 0}
    into.variants.append(variant)
    # nothing but "return 0": clang found something undefined in it and dropped the rest
    into.missing[variant] = sorted(name for name, code in codes.items() if len(code) <= 2 * 8)
    into.unknown[variant] = sorted(
        f"{name}: {what}" for name, code in codes.items() for what in unknown(code, helpers, features.cmpxchg)
    )


def _unit(name: str) -> str:
    return sources.unit(name) + "\n" + layout.static_asserts()


def check_offsets(tree: Tree, types: Btf, into: Generated) -> None:
    """Have BCC generate an access to every member in use, and read the offset (and size) from the code."""
    jobs: list[tuple[str, Member]] = []
    for wanted in tree.wanted:
        type_id = types.find(wanted.struct, btf.STRUCT, btf.UNION)
        if isinstance(tree, Installed) and wanted.struct.startswith(("bpf_iter", "bpf_nf", "nf_", "pt_regs")):
            continue  # in no header; not named by the programs
        found = (types.member(type_id, name) for name in wanted.members) if type_id else ()
        jobs += [(wanted.struct, member) for member in found if member]
    lines = []
    for number, (name, member) in enumerate(jobs):
        value = "(u64)p->" if _scalar(types, member) else "(u64)&p->"
        lines.append(f"u64 f{number}(struct {name} *p) {{ return {value}{member.name}; }}")
    start = [sources.unit("kernel.h")] if isinstance(tree, Installed) else []
    codes = tree.compile("\n".join(start + lines), [], [f"f{number}" for number in range(len(jobs))])
    into.members = len(jobs)
    for (name, member), code in zip(jobs, codes.values(), strict=True):
        expected = (member.offset, _width(types, member))
        if access(code) != expected:
            into.wrong.append(f"{name}.{member.name}: BTF has {expected}, the code {access(code)}")


def check_arguments(tree: Tree, into: Generated) -> None:
    """As the programs of the kprobe variant get theirs: BCC makes loads from struct pt_regs of it."""
    first = "u64 first(struct pt_regs *ctx, void *a) { return (u64)a; }"
    second = "u64 second(struct pt_regs *ctx, void *a, void *b) { return (u64)b; }"
    codes = tree.compile(f"{first}\n{second}", [], ["first", "second"])
    into.arguments = [access(code)[0] for code in codes.values()]


def access(code: bytes) -> tuple[int, int]:
    """(offset, bytes) of the one load in the code; bytes is 0 for a mere address."""
    offset = 0
    for operation, _, at, immediate in _instructions(code):
        if operation in _LOADS:
            return at, _LOADS[operation]
        if operation == _ADD:
            offset += immediate
    return offset, 0


def _scalar(types: Btf, member: Member) -> bool:
    kind = types.kind(types.resolve(member.type_id))
    return bool(member.bits) or kind in (btf.INT, btf.PTR, btf.ENUM)


def _width(types: Btf, member: Member) -> int:
    if member.bits:
        return 1  # the byte it lies in
    return types.size(member.type_id) if _scalar(types, member) else 0


def main(vmlinuz: Path, packages: Path | None = None) -> dict[str, Any]:
    """All checks for one kernel."""
    types = Btf(kernel_btf(vmlinuz))
    for module in (vmlinuz.parent / "lib/modules").glob("*/kernel/net/netfilter/nf_conntrack.ko*"):
        with suppress(ValueError):  # before Linux 5.11 modules have none
            types = types.with_module(section(module_image(module), b".BTF"))
    features, result = Offline(types, kprobes=Path("/")), Generated()
    result.conntrack = features.conntrack
    with tempfile.TemporaryDirectory(prefix="weir-codegen-") as folder:
        tree = Installed(packages) if packages else Tree(types, Path(folder))
        check_offsets(tree, types, result)
        if packages:
            features = WithoutBtf(types, kprobes=Path("/"))
        else:
            check_arguments(tree, result)
        for variant in features.tcp_variants():
            check_programs(tree, types, variant, features, result)
        os.chdir("/")
    return asdict(result)


if __name__ == "__main__":
    print(json.dumps(main(*map(Path, sys.argv[1:]))))
