# SPDX-License-Identifier: Apache-2.0
"""Which instructions of a file are probed: of real libraries, of ones made here, and of damaged ones."""

from __future__ import annotations

import io
import os
import random
import shutil
import subprocess
from pathlib import Path

import pytest

from weir.tls import code, golang, libraries, processes
from weir.tls.elf import Elf, ElfError, NotElfError
from weir.tls.processes import Scope
from weir.tls.sites import Listing

_BODY = """
int SSL_write(void *s, const void *b, int n) {{ return n; }}
{read}
void SSL_free(void *s) {{ }}
"""
_READ = "int SSL_read(void *s, void *b, int n) { return n > 3 ? 3 : n; }"
#: Ends by jumping to a function that has no name.
_JUMPS = """
static int __attribute__((noinline)) inner(void *s, char *b, long n) { b[n] = 1; return n & 7; }
int SSL_read(void *s, void *b, int n) { if (n < 3) return 5; return inner(s, b, n); }
"""


#: First bytes of instructions that the kernel carries out by itself: push, jumps, nop, call.
_CHEAP = (*range(0x50, 0x58), *range(0x70, 0x80), 0x0F, 0x90, 0xE8, 0xE9, 0xEB)


def made(folder: Path, text: str, *flags: str, name: str = "libssl.so.3") -> Path:
    """A library of this C text."""
    if shutil.which("gcc") is None:
        pytest.skip("gcc is not installed")
    (folder / "made.c").write_text(text)
    subprocess.run(
        ["gcc", "-shared", "-fPIC", "-O2", *flags, "-o", folder / name, folder / "made.c"], check=True
    )
    return folder / name


def probed(path: Path) -> list[tuple[str, int]]:
    with path.open("rb") as file:
        found = libraries.probes(file)
    assert found
    assert found[0] == "openssl"
    return [(probe.program, path.read_bytes()[probe.offset]) for probe in found[1]]


def installed(name: str) -> Path:
    found = sorted(Path("/usr/lib").glob(f"*-linux-gnu/{name}"))
    if not found:
        pytest.skip(f"{name} is not installed")
    return found[0]


@pytest.mark.parametrize("name", ["libssl.so.3", "libgnutls.so.30"])
def test_installed_library(name: str) -> None:
    path = installed(name)
    with path.open("rb") as file:
        found = libraries.probes(file)
    assert found
    data = path.read_bytes()
    returns = [probe.offset for probe in found[1] if probe.program in ("tls_return", "tls_leave")]
    assert len(returns) >= 4
    if os.uname().machine == "x86_64":
        assert {data[at] for at in returns} <= {0xC3, *_CHEAP}
    assert {probe.program for probe in found[1]} >= {"tls_write", "tls_read", "tls_free"}
    assert len(set(found[1])) == len(found[1])


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="looks at x86-64's instructions")
@pytest.mark.parametrize("flags", [(), ("-s",), ("-fcf-protection",), ("-O0",)])
def test_made_library(tmp_path: Path, flags: tuple[str, ...]) -> None:
    found = probed(made(tmp_path, _BODY.format(read=_READ), *flags))
    programs = [program for program, _ in found]
    assert sorted(set(programs)) == ["tls_free", "tls_leave", "tls_read", "tls_write"]
    assert [programs.count(name) for name in ("tls_free", "tls_read", "tls_write")] == [1, 1, 1]
    assert {byte for program, byte in found if program == "tls_leave"} <= {0xC3, *_CHEAP}


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="looks at x86-64's instructions")
def test_jumps_are_followed(tmp_path: Path) -> None:
    """Also in a library without symbols of its own: unwinders know where functions begin."""
    text = _BODY.format(read=_JUMPS)
    found = probed(made(tmp_path, text, "-s", "-fno-partial-inlining", "-fno-ipa-cp"))
    assert [byte for program, byte in found if program == "tls_return"] == [0xC3] * 2
    assert [byte for program, byte in found if program == "tls_leave"] == [0xC3]


def test_missing_symbol(tmp_path: Path) -> None:
    path = made(tmp_path, _BODY.format(read=""))
    with path.open("rb") as file, pytest.raises(ElfError, match="openssl without SSL_read"):
        libraries.probes(file)


def test_two_names_for_one_function(tmp_path: Path) -> None:
    text = _BODY.format(read='int SSL_read(void *, void *, int) __attribute__((alias("SSL_write")));')
    with made(tmp_path, text).open("rb") as file, pytest.raises(ElfError, match="another function, too"):
        libraries.probes(file)


@pytest.mark.parametrize("data", [b"", b"#!/bin/sh\n", b"\x7fELF\x01\x01" + bytes(99), bytes(4096)])
def test_no_elf(data: bytes) -> None:
    with pytest.raises(NotElfError):
        libraries.probes(io.BytesIO(data))


def test_program_without_tls() -> None:
    with Path("/bin/true").open("rb") as file:
        assert libraries.probes(file) is None


def test_unknown_instructions() -> None:
    with pytest.raises(code.CodeError, match="not known"):
        code.exits(b"\x06\x06\x06", 0x1000, "x64")
    with pytest.raises(code.CodeError, match="not read"):
        code.exits(b"\xc3", 0x1000, "ARM")
    with pytest.raises(code.CodeError, match="too long"):
        code.exits(b"\x90" * 70_000, 0x1000, "x64")


def test_exits() -> None:
    # je +2; ret; nop; jmp 0x2000 (from 0x1004); bnd ret
    assert code.exits(bytes.fromhex("7402c390e9f70f0000f2c3"), 0x1000, "x64") == code.Exits(
        frozenset({0x1002, 0x1009}), frozenset({0x2000})
    )
    # b.eq 0x2000; ret; b 0x3000; cbz x0, 0x1000
    arm = code.exits(bytes.fromhex("00800054c0035fd6fe07001420ffffb4"), 0x1000, "AArch64")
    assert arm == code.Exits(frozenset({0x1004}), frozenset({0x2000, 0x3000, 0xFF0}))


def listing(code: str) -> Listing:
    return Listing(bytes.fromhex(code), 0x1000)


@pytest.mark.parametrize(
    ("code", "at"),
    [
        ("53 c3", 0x1000),  # push rbx
        ("85d2 7801 c3 c3", 0x1002),  # test edx, edx; js
        ("4883ec18 85d2 7801 c3 c3", 0x1006),
        ("89cf 53 c3", 0x1000),  # mov edi, ecx: an argument is gone
        ("4883ec08 53 ebfd", 0x1000),  # push rbx, which is jumped back to
        ("ff20", 0x1000),  # jmp [rax]
        ("c3", 0x1000),
    ],
)
def test_where_a_function_begins(code: str, at: int) -> None:
    assert listing(code).beginning() == at


@pytest.mark.parametrize(
    ("code", "ret", "at"),
    [
        ("31c0 7505 4883c408 c3 e800000000", 0x1008, 0x1002),  # xor eax, eax; jne to __stack_chk_fail
        ("31c0 7505 4883c408 c3 e811000000 6690", 0x1008, 0x1002),
        ("31c0 7502 58 c3 90 c3", 0x1005, 0x1005),  # jne to what goes on, pop rax
        ("31c0 7505 b001 9090 c3 e800000000", 0x1008, 0x1007),  # mov al, 1; nop
        ("31c0 7504 b001 90 c3 e800000000", 0x1007, 0x1006),
        ("31c0 7505 b001 6690 c3 e800000000", 0x1008, 0x1008),  # a nop that only newer kernels know
        ("7402 7503 c3 90 c3 e800000000", 0x1004, 0x1004),  # the return is jumped to
        ("c3", 0x1000, 0x1000),
    ],
)
def test_where_a_function_ends(code: str, ret: int, at: int) -> None:
    assert listing(code).ending(ret) == at


def test_where_a_function_of_go_begins() -> None:
    assert listing("493b6610 7603 55 c3 c3 c3").behind_stack_check() == 0x1006  # cmp rsp, [r14+16]; jbe; push
    assert listing("493b6610 7603 4883ec08 c3 c3").behind_stack_check() is None
    assert listing("4889d8 55 c3").behind_stack_check() is None  # mov rax, rbx: an argument is gone


def test_damaged_files(tmp_path: Path) -> None:
    """Anybody may have such a file mapped: it is refused in words, quickly, and nothing else happens."""
    whole = made(tmp_path, _BODY.format(read=_JUMPS), "-s").read_bytes()
    chance, refused = random.Random(17), 0
    for _ in range(700):
        damaged = bytearray(whole)
        head = chance.random() < 0.6
        for _ in range(chance.randint(1, 6)):
            at = chance.choice([chance.randrange(64), -chance.randrange(1, 2048), chance.randrange(64, 1024)])
            damaged[at if head else chance.randrange(len(damaged))] = chance.randrange(256)
        if chance.random() < 0.2:
            del damaged[chance.randrange(len(damaged)) :]
        try:
            libraries.probes(io.BytesIO(damaged))
        except (ElfError, code.CodeError) as error:
            refused += bool(str(error))
    assert refused > 100


@pytest.mark.parametrize("once", [True, False])
def test_a_go_program(tmp_path: Path, once: bool) -> None:
    """Stripped. Where probes may be set twice, Write's return is needed, too."""
    if shutil.which("go") is None:
        pytest.skip("go is not installed")
    (tmp_path / "main.go").write_text(
        'package main\nimport "net/http"\nfunc main() { http.Get("https://x") }\n'
    )
    env = {**os.environ, "GO111MODULE": "off", "GOCACHE": "/var/cache/weir/go-build"}
    command = ["go", "build", "-ldflags=-s -w", "-o", str(tmp_path / "made"), str(tmp_path / "main.go")]
    subprocess.run(command, env=env, check=True, cwd=tmp_path)
    with (tmp_path / "made").open("rb") as file:
        found = libraries.probes(file, once)
    assert found
    assert found[0] == "go"
    programs = {probe.program for probe in found[1]}
    assert programs >= {"go_read", "go_return", "go_close", "go_handshake"}
    assert ("go_write_once" in programs) == (once and os.uname().machine == "x86_64")
    assert ("go_write" in programs) == ("go_write_once" not in programs)


def test_damaged_go_table() -> None:
    class Damaged(Elf):
        """A file whose table is what the test says."""

        def __init__(self, table: bytes) -> None:
            self.table = table

        def section(self, name: str) -> tuple[int, bytes] | None:
            return (0x1000, self.table) if name == ".gopclntab" else None

        def section_address(self, _: str) -> int:
            return 0x1000

    for head, why in (
        (b"\xfa\xff\xff\xff", "before 1.18"),
        (b"\1\2\3\4", "not known"),
        (b"\xf1\xff\xff\xff", "damaged"),
    ):
        with pytest.raises(ElfError, match=why):
            golang.functions(Damaged(head + b"\0\0\1\x08" + b"\xff" * 99), ["main.main"])
    with pytest.raises(ElfError, match="cut off"):
        golang.functions(Damaged(b"\xf1\xff\xff\xff"), ["main.main"])


def test_names_of_files() -> None:
    names = ("libssl.so", "libssl.so.1.1", "libssl-1a2b3c.so.3", "libgnutls.so.30.34.3")
    assert all(map(libraries.of_file_name, names))
    assert not any(map(libraries.of_file_name, ("libssl3.so", "libssl.a", "xlibssl.so", "libcrypto.so.3")))


def test_mapped_files_of_a_process(tmp_path: Path) -> None:
    proc = tmp_path / "7"
    proc.mkdir()
    (proc / "exe").symlink_to("/usr/bin/thing")
    (proc / "maps").write_text(
        "00400000-00500000 r-xp 00000000 fe:00 11   /usr/bin/thing\n"
        "00500000-00600000 r--p 00000000 fe:00 11   /usr/bin/thing\n"
        "7f00000000-7f00001000 r-xp 00000000 00:2b 12   /usr/lib/a b/libssl.so.3 (deleted)\n"
        "7f00001000-7f00002000 r-xp 00000000 00:2b 12   /usr/lib/a b/libssl.so.3 (deleted)\n"
        "7f00002000-7f00003000 r-xp 00000000 fe:00 13   /usr/lib/libc.so.6\n"
        "7fffff000-7fffff1000 r-xp 00000000 00:00 0   [vdso]\n"
        "7fffff1000-7fffff2000 rwxp 00000000 00:00 0\n"
    )
    found = list(processes.mapped(7, tmp_path))
    assert [(file.name, file.path) for file in found] == [
        ("fe:00:11", "/usr/bin/thing"), ("00:2b:12", "/usr/lib/a b/libssl.so.3"),
    ]  # fmt: skip
    assert found[0].via.endswith("7/map_files/400000-500000")
    assert [file.may_have_two_names for file in found] == [False, True]
    assert list(processes.mapped(8, tmp_path)) == []


def test_scope(tmp_path: Path) -> None:
    proc = tmp_path / "7"
    (proc / "ns").mkdir(parents=True)
    (proc / "ns/net").touch()
    inode = (proc / "ns/net").stat().st_ino
    (proc / "cgroup").write_text("1:cpu:/x\n0::/pods/a/b\n")
    assert Scope().has(7, tmp_path)
    assert Scope(frozenset({inode}), ("/pods/a",)).has(7, tmp_path)
    assert Scope(frozenset(), ("/",)).has(7, tmp_path)
    assert not Scope(frozenset({inode + 1})).has(7, tmp_path)
    assert not Scope(frozenset(), ("/pods/ab", "/pod")).has(7, tmp_path)
