# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import struct
from functools import cache
from pathlib import Path

import pytest

from weir.errors import KernelError
from weir.kernel import btf
from weir.kernel.btf import Btf, BtfError
from weir.kernel.features import Features

needs_btf = pytest.mark.skipif(not btf.KERNEL_BTF.exists(), reason=f"no BTF: {btf.KERNEL_BTF}")


class Builder:
    """BTF blobs by hand; the first type has id 1."""

    def __init__(self) -> None:
        self._types: list[bytes] = []
        self._strings = b"\0"

    def string(self, text: str) -> int:
        if not text:
            return 0
        if b"\0" + text.encode() + b"\0" not in self._strings:
            self._strings += text.encode() + b"\0"
        return self._strings.index(b"\0" + text.encode() + b"\0") + 1

    def add(
        self, kind: int, name: str = "", count: int = 0, size: int = 0, tail: bytes = b"", flag: int = 0
    ) -> int:
        info = flag << 31 | kind << 24 | count
        self._types.append(struct.pack("<III", self.string(name), info, size) + tail)
        return len(self._types)

    def integer(self, name: str, size: int, signed: bool = False) -> int:
        return self.add(btf.INT, name, 0, size, struct.pack("<I", signed << 24 | size * 8))

    def struct(
        self, name: str, size: int, *members: tuple[str, int, int, int], kind: int = btf.STRUCT
    ) -> int:
        """Members: name, type, offset in bits, width in bits (0: no bit-field)."""
        flag = int(any(bits for *_, bits in members))
        tail = b"".join(
            struct.pack("<III", self.string(n), t, bits << 24 | at if flag else at)
            for n, t, at, bits in members
        )
        return self.add(kind, name, len(members), size, tail, flag)

    def array(self, element: int, count: int) -> int:
        return self.add(btf.ARRAY, tail=struct.pack("<III", element, element, count))

    def blob(self) -> bytes:
        types = b"".join(self._types)
        head = struct.pack("<HBBIIIII", 0xEB9F, 1, 0, 24, 0, len(types), len(types), len(self._strings))
        return head + types + self._strings


def small() -> tuple[Builder, Btf]:
    made = Builder()
    u32, u8 = made.integer("unsigned int", 4), made.integer("char", 1, signed=True)
    alias = made.add(btf.TYPEDEF, "u32", size=u32)
    const = made.add(btf.CONST, size=alias)
    pointer = made.add(btf.PTR, size=u8)
    inner = made.struct("", 8, ("deep", const, 0, 0), ("deeper", u8, 32, 0), kind=btf.UNION)
    many = made.array(u32, 7)
    made.struct(
        "box", 64, ("first", u32, 0, 0), ("", inner, 64, 0), ("list", many, 128, 0), ("at", pointer, 384, 0)
    )
    made.struct("bits", 8, ("whole", u32, 0, 0), ("low", u32, 32, 3), ("high", u32, 45, 2))
    made.add(btf.ENUM, "colour", 2, 4, struct.pack("<IiIi", made.string("RED"), -1, made.string("BLUE"), 7))
    big = struct.pack("<IiI", made.string("FAR"), 5, 0)
    made.add(btf.ENUM64, "wide", 1, 8, big)
    made.add(btf.FWD, "box")
    made.add(btf.FUNC, "bpf_iter_tcp", size=1)
    return made, Btf(made.blob())


def test_structs_and_members() -> None:
    _, types = small()
    box = types.find("box", btf.STRUCT)
    assert types.size(box) == 64
    assert [(m.name, m.offset) for m in types.members(box)] == [
        ("first", 0),
        ("", 8),
        ("list", 16),
        ("at", 48),
    ]
    deep = types.member(box, "deep")
    assert deep is not None
    assert (deep.offset, types.size(deep.type_id)) == (8, 4)
    deeper = types.member(box, "deeper")
    assert deeper is not None
    assert (deeper.offset, types.signed(types.resolve(deeper.type_id))) == (12, True)
    assert types.member(box, "none") is None
    many, at = types.member(box, "list"), types.member(box, "at")
    assert many is not None
    assert at is not None
    assert (types.size(many.type_id), types.size(at.type_id)) == (28, 8)


def test_bit_fields() -> None:
    _, types = small()
    found = {m.name: (m.offset, m.bits, m.shift) for m in types.members(types.find("bits", btf.STRUCT))}
    assert found == {"whole": (0, 0, 0), "low": (4, 3, 0), "high": (5, 2, 5)}


def test_find_by_name_and_kind() -> None:
    _, types = small()
    assert types.kind(types.find("box", btf.FWD)) == btf.FWD
    assert types.kind(types.find("box", btf.STRUCT)) == btf.STRUCT
    assert types.find("box", btf.FUNC) == 0
    assert types.find("bo", btf.STRUCT) == 0
    assert types.find("", btf.UNION) == 0
    assert types.name(types.find("u32", btf.TYPEDEF)) == "u32"
    with pytest.raises(BtfError, match="is no struct"):
        next(types.members(types.find("u32", btf.TYPEDEF)))


def test_enums() -> None:
    _, types = small()
    assert types.enum("colour") == {"RED": -1, "BLUE": 7}
    assert types.enum("wide") == {"FAR": 5}
    assert types.enum("none") == {}


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "too short"),
        (b"\x9f\xeb\x01", "too short"),
        (bytes(64), "no BTF magic"),
        (b"\x7fELF" + bytes(60), "no BTF magic"),
        (struct.pack(">HBBIIIII", 0xEB9F, 1, 0, 24, 0, 0, 0, 1) + b"\0", "no BTF magic"),
    ],
)
def test_not_btf(data: bytes, said: str) -> None:
    with pytest.raises(BtfError, match=said):
        Btf(data)


def test_an_unknown_kind_and_a_cut_blob() -> None:
    made = Builder()
    made.add(29, "new")
    with pytest.raises(BtfError, match="unknown BTF kind 29 at type 1"):
        Btf(made.blob())
    whole = small()[0].blob()
    for size in (30, len(whole) // 2):
        with pytest.raises(BtfError, match="cut short"):
            Btf(whole[:size])


@cache
def kernel() -> Btf:
    return Btf.from_file()


@needs_btf
def test_this_kernel() -> None:
    """What every kernel has, by numbers that the UAPI fixes."""
    types = kernel()
    task = types.find("task_struct", btf.STRUCT)
    comm = types.member(task, "comm")
    assert comm is not None
    assert types.size(comm.type_id) == 16
    in6 = types.find("in6_addr", btf.STRUCT)
    assert types.size(in6) == 16
    assert types.enum("bpf_func_id")["BPF_FUNC_map_lookup_elem"] == 1
    sock = types.find("sock_common", btf.STRUCT)
    offsets = [
        types.member(sock, n) for n in ("skc_daddr", "skc_rcv_saddr", "skc_dport", "skc_num", "skc_family")
    ]
    assert [m.offset for m in offsets if m] == [0, 4, 12, 14, 16]
    assert types.find("no_such_struct_anywhere", btf.STRUCT) == 0


def test_features_of_a_kernel_without_any(tmp_path: Path) -> None:
    features = Features(small()[1], tmp_path / "none")
    assert features.tcp_variants() == []
    for wanted in ("auto", "storage"):
        with pytest.raises(KernelError, match=rf"'{wanted}' on this kernel \(possible: none\)"):
            features.tcp_variant(wanted)
    assert features.iterator("tcp")
    assert not features.iterators
    made, types = small()
    assert Features(types, tmp_path).tcp_variants() == []  # kprobes, but no link to pin
    made.struct("bpf_perf_link", 8)
    assert Features(Btf(made.blob()), tmp_path).tcp_variant("auto") == "kprobe"
