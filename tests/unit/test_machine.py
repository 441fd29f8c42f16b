# SPDX-License-Identifier: Apache-2.0
"""What differs between processors, and the one line that a machine gets which Weir does not know."""

from __future__ import annotations

import errno
import json
import os
import platform
import re
import subprocess
import sys
from pathlib import Path

import pytest

from weir.kernel import machine, maps
from weir.kernel.layout import SLOT

ROOT = Path(__file__).parents[2]


def _weir(*arguments: str, under: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*under, sys.executable, "-m", "weir", *arguments], cwd=ROOT, text=True, capture_output=True,
        check=False, env={**os.environ, "PYTHONPATH": str(ROOT / "agent")},
    )  # fmt: skip


def test_this_machine_is_known() -> None:
    assert machine.refusal() == ""
    assert machine.number("bpf") > 0


@pytest.mark.parametrize("name", machine.TESTED)
def test_tested_machines_are_known(name: str) -> None:
    assert machine.refusal(name, 8, "little") == ""


def test_what_is_refused() -> None:
    assert "(s390x): run it on one of x86_64, aarch64" in machine.refusal("s390x", 8, "big")
    assert machine.refusal("aarch64", 4, "little").startswith("this Python is a 32-bit program on aarch64")


def test_a_call_of_no_number_is_an_error_not_a_crash() -> None:
    with pytest.raises(OSError, match=os.strerror(errno.ENOSYS)) as caught:
        machine.syscall("no such call", 1, None, b"")
    assert caught.value.errno == errno.ENOSYS


def test_a_call_gives_the_kernels_errno() -> None:
    with pytest.raises(OSError, match=r"nvalid|ad address|ermi") as caught:
        machine.syscall("perf_event_open", None, 0, 0, -1, 0x7FFFFFFF)
    assert caught.value.errno in (errno.EINVAL, errno.EFAULT, errno.EPERM, errno.EACCES)


@pytest.mark.skipif(platform.machine() != "x86_64", reason="uname(2) is changed by personality(2) on x86-64")
def test_another_machine_is_refused_in_one_line() -> None:
    """PER_LINUX32: the kernel itself says i686 to such a process."""
    linux32 = ("setarch", "linux32")
    said = _weir("run", under=linux32)
    assert said.returncode == 4
    assert re.fullmatch(
        r"weir: .*Weir does not know the system calls of this machine \(i686\): run it on one of .*\n",
        said.stderr,
    )
    told = json.loads(_weir("check", "--json", under=linux32).stdout)
    (found,) = (f for f in told["findings"] if f["feature"] == "processor")
    assert (found["state"], found["fatal"]) == ("missing", True)
    assert "i686" in found["remedy"]


@pytest.mark.parametrize("page", [4096, 16384, 65536])
def test_slots_are_mapped_in_whole_pages(page: int) -> None:
    size = 1000 * SLOT.itemsize
    mapped = maps._pages(size, page)
    assert mapped % page == 0
    assert size <= mapped < size + page


def test_numbers_are_in_one_place() -> None:
    """``syscall`` of libc takes a number: it is called with one from the table only."""
    for path in (ROOT / "agent").rglob("*.py"):
        calls = re.findall(r"libc\.syscall\((\S+?)[,(]", path.read_text(encoding="utf-8"))
        assert set(calls) <= {"number", "machine.number"}, path
