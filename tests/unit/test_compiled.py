# SPDX-License-Identifier: Apache-2.0
"""Builds that are kept: whole, or not used; of root's hand, or not used; never more than a few."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import pytest

from weir.kernel.compiled import KEPT, Cache, Compiled, MapSpec, Program, unlinked

BUILD = Compiled(
    (MapSpec("slots", 2, 4, 8, 16, 1024), MapSpec("edges", 1, 4, 4, 16, 0)),
    {"one": Program(bytes(range(64)), [(2, 1), (5, 0)]), "none": Program(bytes(8), [])},
)


def insn(opcode: int, registers: int, imm: int) -> bytes:
    return struct.pack("<BBhi", opcode, registers, 0, imm)


def test_round_trip(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "deep/programs")
    assert cache.read("d1") is None
    cache.write("d1", BUILD)
    assert cache.read("d1") == BUILD
    assert cache.read("d2") is None


def test_descriptors_are_taken_out() -> None:
    """But not numbers that look like one: a constant, or the second half of a 64-bit one."""
    name, constant, half, other = insn(0x18, 0x11, 7), insn(0x18, 0x02, 7), insn(0, 0, 0), insn(0xB7, 1, 7)
    tricky = insn(0x18, 0x10, 0)
    program = unlinked(name + half + constant + tricky + other + name + half, {7: 3})
    assert list(program.maps) == [(0, 3), (5, 3)]
    empty = insn(0x18, 0x11, 0)
    assert program.code == empty + half + constant + tricky + other + empty + half


@pytest.mark.parametrize("length", [0, 31, 32, 33, 200, -1])
def test_a_file_that_is_not_whole_is_not_used(tmp_path: Path, length: int) -> None:
    cache = Cache(tmp_path)
    cache.write("d", BUILD)
    path = tmp_path / "d.programs"
    path.write_bytes(path.read_bytes()[:length])
    assert cache.read("d") is None


@pytest.mark.parametrize("what", ["file", "folder"])
def test_what_others_can_write_is_not_used(tmp_path: Path, what: str) -> None:
    cache = Cache(tmp_path)
    cache.write("d", BUILD)
    (tmp_path / "d.programs" if what == "file" else tmp_path).chmod(0o777)
    assert cache.read("d") is None


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    cache.write("d", BUILD)
    (tmp_path / "d.programs").rename(tmp_path / "elsewhere")
    (tmp_path / "d.programs").symlink_to(tmp_path / "elsewhere")
    assert cache.read("d") is None


def test_the_newest_few_are_kept(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    for number in range(KEPT + 5):
        cache.write(f"d{number}", BUILD)
        os.utime(tmp_path / f"d{number}.programs", (number, number))
    assert cache.read("d5") == BUILD  # it is of use, so it stays
    cache.write("last", BUILD)
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {f"d{n}.programs" for n in (5, *range(7, KEPT + 5))} | {"last.programs"}


@pytest.mark.parametrize("folder", [None, Path("/proc/none/of/it")])
def test_without_a_folder_nothing_is_kept(folder: Path | None) -> None:
    cache = Cache(folder)
    cache.write("d", BUILD)
    assert cache.read("d") is None
