# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import re
import shutil
import struct
import subprocess
from pathlib import Path

import pytest

from tests.unit.test_btf import Builder, needs_btf
from weir.errors import KernelError
from weir.kernel import btf, sources
from weir.kernel.btf import Btf
from weir.kernel.headers import HeaderTree, Wanted, enum_constants, helper_ids, parse_wanted, write_tree

_TYPES = "".join(
    f"typedef {sign} {kind} __{letter}{size};\n"
    for sign, letter in (("unsigned", "u"), ("signed", "s"))
    for kind, size in (("char", 8), ("short", 16), ("int", 32), ("long", 64))
)


def compiles(text: str) -> str:
    """What gcc says of a C text; "" when it takes it."""
    if shutil.which("gcc") is None:
        pytest.skip("gcc is not installed")
    command = ["gcc", "-fsyntax-only", "-Wall", "-Werror", "-Wno-unused", "-fms-extensions", "-x", "c", "-"]
    return subprocess.run(command, input=_TYPES + text, text=True, capture_output=True, check=False).stderr


def test_lines_of_the_list() -> None:
    text = "# head\n\nsock: sk_err sk_type?\npt_regs?: di? # behind\n"
    assert parse_wanted(text) == [
        Wanted("sock", False, {"sk_err": False, "sk_type": True}), Wanted("pt_regs", True, {"di": True}),
    ]  # fmt: skip


@needs_btf
def test_offsets_of_this_kernel_by_another_compiler() -> None:
    """gcc checks every static assert, with the sizes that BTF tells."""
    types = Btf.from_file()
    wanted = parse_wanted((sources.folder() / "kernel_types.txt").read_text())
    text = HeaderTree(types, wanted).kernel_header()
    sizes = "".join(
        f'_Static_assert(sizeof(struct {w.struct}) >= {types.size(found)}, "{w.struct}");\n'
        for w in wanted
        if (found := types.find(w.struct, btf.STRUCT))
    )
    assert text.count("_Static_assert") > 40
    assert compiles(text + sizes) == ""
    assert "sk_common" in compiles(
        text.replace("bpf_iter__tcp, sk_common) == ", "bpf_iter__tcp, sk_common) == 1")
    )


def sample(bits_at: int = 45) -> Btf:
    made = Builder()
    u32, s64 = made.integer("unsigned int", 4), made.integer("long", 8, signed=True)
    small = made.struct("small", 12, ("x", u32, 64, 0))
    other = made.struct("other", 40, ("x", u32, 0, 0))
    anonymous = made.struct("", 8, ("a", u32, 0, 0), ("b", u32, 32, 0))
    pointer, odd = made.add(btf.PTR, size=small), made.integer("__int128", 16)
    made.struct(
        "big", 200, ("flag", u32, bits_at, 2), ("sum", s64, 64, 0), ("by_value", small, 128, 0),
        ("opaque", other, 224, 0), ("unnamed", anonymous, 544, 0), ("to", pointer, 640, 0),
        ("list", made.array(u32, 7), 704, 0), ("matrix", made.array(made.array(u32, 3), 2), 928, 0),
        ("wide", odd, 1152, 0),
    )  # fmt: skip
    return Btf(made.blob())


def header(types: Btf, *lines: str) -> str:
    return HeaderTree(types, parse_wanted("\n".join(lines))).kernel_header()


def test_every_form_of_member() -> None:
    members = "flag sum by_value opaque unnamed to list matrix"
    text = header(sample(), f"big: {members}", "small: x")
    judge = """
        _Static_assert(sizeof(struct big) == 200, "size");
        _Static_assert(sizeof(((struct big *)0)->opaque) == 40, "opaque");
        _Static_assert(sizeof(((struct big *)0)->list) == 28, "list");
        _Static_assert(sizeof(((struct big *)0)->matrix) == 24, "matrix");
        _Static_assert(sizeof(((struct big *)0)->matrix[0]) == 12, "row");
        int f(struct big *b) { return b->to->x + b->by_value.x + b->unnamed.b + b->matrix[1][2]; }
        _Static_assert((__typeof__(((struct big *)0)->sum))-1 < 0, "signed");
    """
    assert compiles(text + judge) == ""
    assert text.index("struct small {") < text.index("struct big {")


@pytest.mark.parametrize(("at", "offset", "shift"), [(45, 5, 5), (0, 0, 0), (7, 0, 7), (8, 1, 0)])
def test_bit_fields_are_a_byte_and_a_shift(at: int, offset: int, shift: int) -> None:
    text = header(sample(at), "big: flag")
    assert f"#define SHIFT_big__flag {shift}\n" in text
    assert f"offsetof(struct big, flag) == {offset}," in text
    assert "__u8 flag;" in text
    assert compiles(text) == ""


def test_what_this_kernel_lacks() -> None:
    with pytest.raises(KernelError, match="BTF has no struct nothing: Weir cannot read its sockets"):
        header(sample(), "nothing: x")
    with pytest.raises(KernelError, match=r"BTF has no big\.nothing"):
        header(sample(), "big: sum nothing")
    text = header(sample(), "nothing?: x", "big: sum nothing?")
    assert "HAVE_big__sum" in text
    assert "nothing" not in text
    with pytest.raises(KernelError, match="has a size of 16 bytes"):
        header(sample(), "big: wide")
    with pytest.raises(KernelError, match="no enum sock_flags"):
        enum_constants(sample())


def test_helper_numbers() -> None:
    """A helper that this kernel lacks has a number that none has, so that the verifier refuses a call."""
    made = Builder()
    names = [made.string(n) for n in ("BPF_FUNC_unspec", "BPF_FUNC_one", "__BPF_FUNC_MAX_ID")]
    made.add(btf.ENUM, "bpf_func_id", 3, 4, struct.pack("<IiIiIi", names[0], 0, names[1], 1, names[2], 2))
    types = Btf(made.blob())
    numbers = dict(re.findall(r"(\w+) = (\d+)", helper_ids(types, b"..BPF_FUNC_one\0BPF_FUNC_newer\0")))
    assert numbers.keys() == {"BPF_FUNC_unspec", "BPF_FUNC_one", "BPF_FUNC_newer"}
    assert (numbers["BPF_FUNC_unspec"], numbers["BPF_FUNC_one"]) == ("0", "1")
    assert int(numbers["BPF_FUNC_newer"]) > 1 << 16


@needs_btf
def test_the_whole_tree(tmp_path: Path) -> None:
    wanted = parse_wanted((sources.folder() / "kernel_types.txt").read_text())
    write_tree(tmp_path, Btf.from_file(), wanted, "/* shim */", b"BPF_FUNC_newer")
    assert (tmp_path / "include/linux/kconfig.h").read_text() == "/* shim */"
    assert re.search(r"LINUX_VERSION_CODE \d+", (tmp_path / "include/linux/version.h").read_text())
    assert compiles((tmp_path / "include/weir_kernel.h").read_text()) == ""


def test_an_include_that_may_be_compiled_out_comes_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    guarded = "#ifndef {0}\n#define {0}\n{1}\n#endif\n"
    for name, text in {
        "weir.c": '#ifdef A\n#include "a.h"\n#endif\n#include "b.h"\n#include "b.h"\n',
        "a.h": guarded.format("A_H", '#include "c.h"'),
        "b.h": guarded.format("B_H", '#include "c.h"'),
        "c.h": guarded.format("C_H", "int c;"),
    }.items():
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(sources, "folder", lambda: tmp_path)
    text = sources.unit("weir.c")
    assert text.count("int c;") == 2
    assert text.count("B_H") == 2
    assert text.index("int c;") < text.index("#ifndef B_H")
