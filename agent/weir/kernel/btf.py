# SPDX-License-Identifier: Apache-2.0
"""Reading BTF (Documentation/bpf/btf.rst): types by name, members by offset.

Pure Python and quick: one pass over the type section (about 0.1 s for a whole kernel),
members are decoded only for the structs that are asked for.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

KERNEL_BTF = Path("/sys/kernel/btf/vmlinux")
CONNTRACK_BTF = Path("/sys/kernel/btf/nf_conntrack")

INT, PTR, ARRAY, STRUCT, UNION, ENUM, FWD, TYPEDEF = 1, 2, 3, 4, 5, 6, 7, 8
VOLATILE, CONST, RESTRICT, FUNC, FUNC_PROTO, VAR, DATASEC, FLOAT = 9, 10, 11, 12, 13, 14, 15, 16
DECL_TAG, TYPE_TAG, ENUM64 = 17, 18, 19
_TRANSPARENT = (TYPEDEF, VOLATILE, CONST, RESTRICT, TYPE_TAG)
#: Bytes behind the 12-byte head: a fixed part and a part for each of vlen entries.
_TAIL = {
    INT: (4, 0), PTR: (0, 0), ARRAY: (12, 0), STRUCT: (0, 12), UNION: (0, 12), ENUM: (0, 8),
    FWD: (0, 0), TYPEDEF: (0, 0), VOLATILE: (0, 0), CONST: (0, 0), RESTRICT: (0, 0), FUNC: (0, 0),
    FUNC_PROTO: (0, 8), VAR: (4, 0), DATASEC: (0, 12), FLOAT: (0, 0), DECL_TAG: (4, 0),
    TYPE_TAG: (0, 0), ENUM64: (0, 12),
}  # fmt: skip


class BtfError(ValueError):
    """Not BTF, or BTF of a form that this reader does not know."""


@dataclass(frozen=True)
class Member:
    """A struct member; ``offset`` in bytes; a bit-field is ``bits`` wide from bit ``shift`` of that byte."""

    name: str
    type_id: int
    offset: int
    bits: int
    shift: int = 0


class Btf:
    """The types of one BTF blob."""

    def __init__(self, data: bytes, base: Btf | None = None) -> None:
        if len(data) < 24:
            raise BtfError("too short for BTF")
        magic, _, _, head, type_off, type_len, str_off, str_len = struct.unpack_from("<HBBIIIII", data)
        if magic != 0xEB9F:
            raise BtfError("no BTF magic (0xEB9F)")
        self._types = data[head + type_off : head + type_off + type_len]
        self._strings = data[head + str_off : head + str_off + str_len]
        if len(self._types) < type_len or len(self._strings) < str_len:
            raise BtfError("BTF that is cut short")
        if base is not None:
            self._types, self._strings = base._types + self._types, base._strings + self._strings
        self._at = [0]
        self._by_name: dict[int, list[int]] = {}
        self._scan()

    @classmethod
    def from_file(cls, path: Path = KERNEL_BTF) -> Btf:
        """Read ``path``; OSError when it is missing, BtfError when it is not BTF."""
        return cls(path.read_bytes())

    @classmethod
    def running(cls) -> Btf:
        """The running kernel's, with those of connection tracking where that is a module; errors as above."""
        types = cls.from_file()
        return types.with_module(CONNTRACK_BTF.read_bytes()) if CONNTRACK_BTF.exists() else types

    def with_module(self, data: bytes) -> Btf:
        """These types and those of a module, whose BTF goes on where this one ends (split BTF)."""
        return Btf(data, self)

    def _scan(self) -> None:
        unpack = struct.Struct("<III").unpack_from
        types, at, by_name, end = self._types, self._at, self._by_name, len(self._types)
        position = 0
        while position < end:
            name, info, _ = unpack(types, position)
            kind = info >> 24 & 0x1F
            if kind not in _TAIL:
                raise BtfError(f"unknown BTF kind {kind} at type {len(at)}")
            if name and kind != FUNC_PROTO:
                by_name.setdefault(name, []).append(len(at))
            at.append(position)
            fixed, each = _TAIL[kind]
            position += 12 + fixed + each * (info & 0xFFFF)

    def _head(self, type_id: int) -> tuple[int, int, int, int]:
        name, info, size = struct.unpack_from("<III", self._types, self._at[type_id])
        return name, info >> 24 & 0x1F, info & 0xFFFF | (info >> 31 << 16), size

    def name(self, type_id: int) -> str:
        """The type's own name, empty if it has none."""
        return self._string(self._head(type_id)[0])

    def kind(self, type_id: int) -> int:
        """The type's kind; 0 (void) for type 0."""
        return self._head(type_id)[1] if type_id else 0

    def _string(self, offset: int) -> str:
        return self._strings[offset : self._strings.index(b"\0", offset)].decode()

    def find(self, name: str, *kinds: int) -> int:
        """Id of the first type of that name and of one of the kinds; 0 if there is none."""
        offset = self._strings.find(b"\0" + name.encode() + b"\0") + 1
        if not offset:
            return 0
        return next((i for i in self._by_name.get(offset, ()) if self._head(i)[1] in kinds), 0)

    def resolve(self, type_id: int) -> int:
        """Look through typedefs and qualifiers."""
        while type_id and self._head(type_id)[1] in _TRANSPARENT:
            type_id = self._head(type_id)[3]
        return type_id

    def members(self, type_id: int) -> Iterator[Member]:
        """Members of a struct or union in order."""
        _, kind, count, _ = self._head(type_id)
        if kind not in (STRUCT, UNION):
            raise BtfError(f"type {type_id} is no struct")
        bitfields, base = count >> 16, self._at[type_id] + 12
        for i in range(count & 0xFFFF):
            name, member, offset = struct.unpack_from("<III", self._types, base + 12 * i)
            bits, offset = (offset >> 24, offset & 0xFFFFFF) if bitfields else (0, offset)
            yield Member(self._string(name), member, offset // 8, bits, offset % 8)

    def named_members(self, type_id: int, base: int = 0) -> Iterator[Member]:
        """The same, those of anonymous structs and unions in their place; ``base`` is added to offsets."""
        for m in self.members(type_id):
            inner = self.resolve(m.type_id)
            if not m.name and self.kind(inner) in (STRUCT, UNION):
                yield from self.named_members(inner, base + m.offset)
            elif m.name:
                yield Member(m.name, m.type_id, base + m.offset, m.bits, m.shift)

    def member(self, type_id: int, name: str, base: int = 0) -> Member | None:
        """A member by name, anonymous structs and unions looked into; None if there is none."""
        for m in self.members(type_id):
            if m.name == name:
                return Member(name, m.type_id, base + m.offset, m.bits, m.shift)
            inner = self.resolve(m.type_id)
            if not m.name and self.kind(inner) in (STRUCT, UNION):
                found = self.member(inner, name, base + m.offset)
                if found:
                    return found
        return None

    def size(self, type_id: int) -> int:
        """Size in bytes of a type (pointers: 8, this project supports 64-bit only)."""
        type_id = self.resolve(type_id)
        _, kind, _, size = self._head(type_id)
        if kind == PTR:
            return 8
        if kind == ARRAY:
            element, count = self.array(type_id)
            return self.size(element) * count
        return size

    def array(self, type_id: int) -> tuple[int, int]:
        """Element type and number of elements of an array."""
        element, _, count = struct.unpack_from("<III", self._types, self._at[type_id] + 12)
        return element, count

    def target(self, type_id: int) -> int:
        """What a pointer, typedef or function points to."""
        return self._head(type_id)[3]

    def signed(self, type_id: int) -> bool:
        """Whether an INT is signed."""
        (encoding,) = struct.unpack_from("<I", self._types, self._at[type_id] + 12)
        return bool(encoding >> 24 & 1)

    def enum(self, name: str) -> dict[str, int]:
        """Enumerators of a named enum; empty if there is none."""
        type_id = self.find(name, ENUM, ENUM64)
        if not type_id:
            return {}
        _, kind, count, _ = self._head(type_id)
        width, base = (8, self._at[type_id] + 12) if kind == ENUM else (12, self._at[type_id] + 12)
        return {
            self._string(n): v
            for n, v in (
                struct.unpack_from("<Ii", self._types, base + width * i) for i in range(count & 0xFFFF)
            )
        }
