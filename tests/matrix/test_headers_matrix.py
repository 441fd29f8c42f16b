# SPDX-License-Identifier: Apache-2.0
"""Without booting: for each kernel in the cache, headers from BTF, all programs, every offset in the code.

A wrong offset reads garbage without any error, so it is looked for in what BCC generated, not in the headers.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.kernel.codegen import Generated, access, unknown

ROOT = Path(__file__).parents[2]
CACHE = Path(os.environ.get("WEIR_KERNELS", "/var/cache/run-in-kernel"))
#: Variants of the TCP plane by kernel series: the matrix of docs/kernels.md.
MATRIX = {
    "5.10": ["tracepoint"],
    "6.1": ["storage", "tracepoint", "kprobe"],
    "6.12": ["storage", "tracepoint", "kprobe"],
    "7.2": ["storage", "tracepoint", "kprobe"],
    "6.1-arm64": ["storage", "tracepoint", "kprobe"],
    "6.12-arm64": ["storage", "tracepoint", "kprobe"],
}


#: Without BTF, from header packages: no iterators, and what BCC of Debian 12 can compile.
FROM_HEADERS = {"5.10": [], "6.1": ["kprobe"], "6.12": ["tracepoint", "kprobe"]}


def _generate(*arguments: Path) -> Generated:
    environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'agent'}:{ROOT}", "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-m", "tests.kernel.codegen", *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, text=True, capture_output=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    return Generated(**json.loads(done.stdout.splitlines()[-1]))


def _image(series: str) -> Path:
    image = CACHE / series / "vmlinuz"
    if not image.exists():
        pytest.skip(f"kernel {series} is not in {CACHE}: scripts/kernel {series} fetches it")
    return image


@pytest.fixture(scope="module", params=MATRIX)
def generated(request: pytest.FixtureRequest) -> tuple[str, Generated]:
    return request.param, _generate(_image(request.param))


def test_variants(generated: tuple[str, Generated]) -> None:
    series, found = generated
    assert found.variants == MATRIX[series]


def test_all_programs_compile(generated: tuple[str, Generated]) -> None:
    assert not any(generated[1].missing.values()), generated[1].missing


def test_programs_use_only_what_the_kernel_has(generated: tuple[str, Generated]) -> None:
    assert not any(generated[1].unknown.values()), generated[1].unknown


def test_connection_tracking_is_laid_out_as_expected(generated: tuple[str, Generated]) -> None:
    assert generated[1].conntrack == ""


def test_arguments_are_read_from_the_registers_of_the_machine(generated: tuple[str, Generated]) -> None:
    """x86-64: di and si (arch/x86/include/asm/ptrace.h); arm64: regs[0] and regs[1] (AAPCS64)."""
    series, found = generated
    assert found.arguments == ([0, 8] if series.endswith("-arm64") else [112, 104])


def test_every_offset_is_that_of_btf(generated: tuple[str, Generated]) -> None:
    assert generated[1].wrong == []
    assert generated[1].members > 40


@pytest.mark.parametrize("series", FROM_HEADERS)
def test_installed_headers_do_for_btf(series: str) -> None:
    packages = CACHE / series / "headers/usr/src"
    if not packages.exists():
        pytest.skip(f"no headers of {series} are in {CACHE}: HEADERS=1 scripts/kernel {series} fetches them")
    found = _generate(_image(series), packages)
    assert found.variants == FROM_HEADERS[series]
    assert not any(found.missing.values()), found.missing
    assert not any(found.unknown.values()), found.unknown
    # BCC's own list of attach types is longer than this kernel's: --cgroup is refused there
    assert [line.split(":")[0] for line in found.wrong] == (
        ["cgroup.ancestor_ids"] if series == "5.10" else []
    )
    assert found.members > 40


def test_the_checks_can_fail() -> None:
    load = bytes.fromhex("6110040000000000 9500000000000000")  # r0 = *(u32 *)(r1 + 4); exit
    address = bytes.fromhex("bf10000000000000 0700000008000000 9500000000000000")  # r0 = r1; r0 += 8
    swap = bytes.fromhex("db12f8fff1000000 8500000007000000")  # cmpxchg; call 7
    assert (access(load), access(address)) == ((4, 4), (8, 0))
    assert unknown(swap, {6: "bpf_trace_printk"}, fetching=False) == {"atomic 0xf1", "helper 7"}
    assert unknown(swap, {7: "bpf_get_prandom_u32"}, fetching=True) == set()
