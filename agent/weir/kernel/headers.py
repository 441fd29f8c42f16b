# SPDX-License-Identifier: Apache-2.0
"""BTF → header tree: the few kernel structs that Weir's programs name, at their exact offsets.

BCC takes this tree instead of kernel headers (``BCC_KERNEL_SOURCE``). A struct is written as a
union of its size and of one padded anonymous struct for each member, so that every member lies
at its BTF offset whatever rules a compiler has for the others; static asserts prove it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from weir.errors import KernelError
from weir.kernel import btf, sources
from weir.kernel.btf import Btf, Member

#: Files that BCC includes by name and that have nothing to say here.
_EMPTY = (
    "linux/log2.h", "linux/types.h", "linux/bpf_common.h", "linux/bpf.h", "asm/page.h",
    "uapi/linux/bpf.h", "uapi/linux/if_packet.h", "uapi/linux/if_ether.h",
)  # fmt: skip
_NO_HELPER = 0x7FFFFFFF
#: Bytes of an anonymous struct whose members are written (socket_lock_t has 32, with lockdep more).
_ANONYMOUS = 256
_VERSION = """\
#define LINUX_VERSION_CODE {code}
#define KERNEL_VERSION(a, b, c) (((a) << 16) + ((b) << 8) + ((c) > 255 ? 255 : (c)))
"""


@dataclass(frozen=True)
class Wanted:
    """One line of ``bpf/kernel_types.txt``; members map to whether they are optional."""

    struct: str
    optional: bool
    members: Mapping[str, bool]


def parse_wanted(text: str) -> list[Wanted]:
    """The lines of ``bpf/kernel_types.txt`` (see its head for the form)."""
    wanted = []
    for line in text.splitlines():
        line = line.split("#")[0].strip()
        if line:
            name, _, members = line.partition(":")
            names = {m.rstrip("?"): m.endswith("?") for m in members.split()}
            wanted.append(Wanted(name.rstrip("?"), name.endswith("?"), names))
    return wanted


def wanted() -> list[Wanted]:
    """What Weir's own programs name."""
    return parse_wanted((sources.folder() / "kernel_types.txt").read_text(encoding="utf-8"))


class HeaderTree:
    """Writes the tree for one BTF and one list of wanted structs."""

    def __init__(self, types: Btf, wanted: list[Wanted]) -> None:
        self._btf = types
        self._wanted = {w.struct: w for w in wanted}
        self._done: dict[str, str] = {}

    def kernel_header(self) -> str:
        """The C text of all wanted structs, with static asserts of their offsets."""
        for name in self._wanted:
            self._struct(name)
        return "\n".join(self._done.values())

    def _struct(self, name: str) -> None:
        wanted = self._wanted[name]
        type_id = self._btf.find(name, btf.STRUCT, btf.UNION)
        if name in self._done or (not type_id and wanted.optional):
            return
        if not type_id:
            raise KernelError(f"this kernel's BTF has no struct {name}: Weir cannot read its sockets")
        members = list(self._members(wanted, type_id))
        for member in members:
            self._need(member.type_id)
        body = "".join(f"\t\t{self._padded(m)}\n" for m in members)
        text = (
            f"struct {name} {{\n\tunion {{\n\t\tchar __size[{self._btf.size(type_id)}];\n{body}\t}};\n}};\n"
        )
        self._done[name] = text + "".join(self._facts(name, members))

    def _members(self, wanted: Wanted, type_id: int) -> Iterator[Member]:
        for name, optional in wanted.members.items():
            member = self._btf.member(type_id, name)
            if member:
                yield member
            elif not optional:
                raise KernelError(f"this kernel's BTF has no {wanted.struct}.{name}")

    def _need(self, type_id: int) -> None:
        """Write the struct of a member held by value first."""
        resolved = self._btf.resolve(type_id)
        while self._btf.kind(resolved) == btf.ARRAY:
            resolved = self._btf.resolve(self._btf.array(resolved)[0])
        if self._btf.kind(resolved) == btf.STRUCT and self._btf.name(resolved) in self._wanted:
            self._struct(self._btf.name(resolved))

    @staticmethod
    def _facts(struct: str, members: list[Member]) -> Iterator[str]:
        for m in members:
            yield f"#define HAVE_{struct}__{m.name} 1\n"
            yield f"#define SHIFT_{struct}__{m.name} {m.shift}\n"
            at = f"__builtin_offsetof(struct {struct}, {m.name})"
            yield f'_Static_assert({at} == {m.offset}, "{struct}.{m.name}");\n'

    def _padded(self, member: Member) -> str:
        pad = f"char __pad_{member.name}[{member.offset}]; " if member.offset else ""
        if member.bits:  # the byte it lies in; SHIFT_… says where
            return f"struct {{ {pad}__u8 {member.name}; }};"
        return f"struct {{ {pad}{self._declare(member.type_id, member.name)}; }};"

    def _declare(self, type_id: int, name: str) -> str:
        resolved = self._btf.resolve(type_id)
        kind = self._btf.kind(resolved)
        if kind == btf.ARRAY:
            element, count = self._btf.array(resolved)
            return self._declare(element, f"{name}[{count}]")
        if kind in (btf.STRUCT, btf.UNION):
            return self._declare_aggregate(resolved, name)
        return f"{self._scalar(resolved, kind)}{name}"

    def _declare_aggregate(self, type_id: int, name: str) -> str:
        own = self._btf.name(type_id)
        if own in self._wanted:
            return f"struct {own} {name}"
        size = self._btf.size(type_id)
        if own or size > _ANONYMOUS:
            return f"char {name}[{size}]"
        inner = " ".join(self._padded(m) for m in self._btf.named_members(type_id) if not m.bits)
        return f"struct {{ union {{ char __size_{name}[{size}]; {inner} }}; }} {name}"

    def _scalar(self, type_id: int, kind: int) -> str:
        if kind == btf.PTR:
            target = self._btf.resolve(self._btf.target(type_id))
            named = self._btf.kind(target) in (btf.STRUCT, btf.FWD) and self._btf.name(target)
            return f"struct {named} *" if named else "void *"
        size = self._btf.size(type_id)
        if size not in (1, 2, 4, 8):
            raise KernelError(f"BTF type {type_id} has a size of {size} bytes")
        signed = kind == btf.INT and self._btf.signed(type_id)
        return f"__{'s' if signed else 'u'}{size * 8} "


def helper_ids(types: Btf, libbcc: bytes) -> str:
    """``enum bpf_func_id`` of this kernel, plus the names that BCC's own header wants.

    BCC's helpers.h names every helper its version knew; those which the kernel lacks get a
    number that no kernel has, so that the verifier refuses a program that calls one. (Not 0: clang
    takes a call of the null pointer for unreachable and silently drops the program around it.)
    """
    known = types.enum("bpf_func_id")
    names = {n.decode() for n in re.findall(rb"BPF_FUNC_[a-z0-9_]+", libbcc)}
    rows = [f"{n} = {v}" for n, v in known.items() if n.startswith("BPF_FUNC_")]
    rows += [f"{n} = {_NO_HELPER}" for n in sorted(names - known.keys())]
    return "enum bpf_func_id { " + ", ".join(rows) + " };\n"


def helpers_present(types: Btf) -> str:
    """``HAVE_BPF_FUNC_<name>`` for every helper that this kernel has."""
    known = (name for name in types.enum("bpf_func_id") if name.startswith("BPF_FUNC_"))
    return "".join(f"#define HAVE_{name} 1\n" for name in known)


def enum_constants(types: Btf) -> str:
    """Enumerators that are no UAPI, by their value in this kernel."""
    flags = types.enum("sock_flags")
    if "SOCK_DONE" not in flags:
        raise KernelError("this kernel's BTF has no enum sock_flags")
    return f"#define SOCK_DONE {flags['SOCK_DONE']}\n"


def write_tree(folder: Path, types: Btf, wanted: list[Wanted], shim: str, libbcc: bytes) -> None:
    """Write the header tree under ``folder`` (made if missing).

    ``shim`` is the text of ``bpf/shim/kconfig.h``, ``libbcc`` the bytes of BCC's library.
    """
    include = folder / "include"
    for name in _EMPTY:
        _write(include / name, "")
    _write(include / "linux/version.h", _VERSION.format(code=_version_code()))
    _write(include / "linux/kconfig.h", shim)
    tree = HeaderTree(types, wanted)
    _write(
        include / "weir_kernel.h",
        helper_ids(types, libbcc) + helpers_present(types) + enum_constants(types) + tree.kernel_header(),
    )


def _version_code() -> int:
    release = Path("/proc/sys/kernel/osrelease").read_text(encoding="ascii")
    found = re.match(r"(\d+)\.(\d+)(?:\.(\d+))?", release)
    major, minor, patch = (int(part or 0) for part in found.groups()) if found else (5, 0, 0)
    return (major << 16) + (minor << 8) + min(patch, 255)


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
