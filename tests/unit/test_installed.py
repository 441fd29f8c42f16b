# SPDX-License-Identifier: Apache-2.0
"""Installed headers: where they are looked for, what to install, what the compiler's messages mean."""

from __future__ import annotations

from pathlib import Path

import pytest

from weir.errors import KernelError
from weir.kernel import installed
from weir.kernel.headers import parse_wanted

WANTED = parse_wanted("sock: sk_err\ncgroup: kn ancestors? ancestor_ids?\npt_regs?: di?\n")
BPF_H = "/usr/src/linux-headers-6.12/include/linux/bpf.h:368:10: "


def _host(root: Path, os_release: str) -> Path:
    (root / "etc").mkdir()
    (root / "etc/os-release").write_text(os_release, encoding="utf-8")
    return root


@pytest.mark.parametrize(
    ("os_release", "expected"),
    [
        ("ID=debian\n", "apt-get install linux-headers-5.15.9-x"),
        ("ID=raspbian\nID_LIKE=debian\n",
         "apt-get install linux-headers-5.15.9-x, or raspberrypi-kernel-headers"),
        ('ID="linuxmint"\nID_LIKE="ubuntu debian"\n', "apt-get install linux-headers-5.15.9-x"),
        ('ID="rocky"\nID_LIKE="rhel centos fedora"\n', "dnf install kernel-devel-5.15.9-x"),
        ('ID="opensuse-leap"\nID_LIKE="suse opensuse"\n', "zypper install kernel-default-devel"),
        ("ID=arch\n", "pacman -S linux-headers"),
        ("ID=something\n", "install the header package of Linux 5.15.9-x"),
        ("", "install the header package of Linux 5.15.9-x"),
    ],
)  # fmt: skip
def test_package(tmp_path: Path, os_release: str, expected: str) -> None:
    assert installed.remedy("5.15.9-x", _host(tmp_path, os_release)) == expected


def test_in_a_container_it_is_for_the_host(tmp_path: Path) -> None:
    root = _host(tmp_path, "ID=debian\n")
    (root / ".dockerenv").touch()
    assert "-v /lib/modules:/lib/modules:ro" in installed.remedy("5.15.9-x", root)


def test_where_headers_are(tmp_path: Path) -> None:
    assert installed.folder("5.15.9-x", tmp_path) is None
    archive = tmp_path / "sys/kernel/kheaders.tar.xz"
    archive.parent.mkdir(parents=True)
    archive.touch()
    assert installed.folder("5.15.9-x", tmp_path) == archive
    build = tmp_path / "lib/modules/5.15.9-x/build"
    (build / "include/generated").mkdir(parents=True)
    assert installed.folder("5.15.9-x", tmp_path) == archive  # unprepared: no use
    (build / "include/generated/autoconf.h").touch()
    assert installed.folder("5.15.9-x", tmp_path) == build


def test_optional_members_by_what_the_compiler_says() -> None:
    said = "bpf/x.h:2:1: error: no member named 'ancestors' in 'struct cgroup'\n1 error generated.\n"
    assert installed.flags(WANTED, lambda *_: said) == [
        "-DWEIR_HEADERS=1", "-DHAVE_cgroup__ancestor_ids=1"
    ]  # fmt: skip


def test_an_older_bcc_gets_the_structs_that_it_lacks() -> None:
    def compiles(_: str, flags: list[str]) -> str:
        return "" if "-DWEIR_OPAQUE=1" in flags else f"{BPF_H}error: incomplete type 'struct bpf_wq'\n"

    assert "-DWEIR_OPAQUE=1" in installed.flags(WANTED, compiles)


def test_headers_that_cannot_be_compiled() -> None:
    with pytest.raises(KernelError, match=r"bpf\.h:368:10.*newer python3-bpfcc"):
        installed.flags(WANTED, lambda *_: f"{BPF_H}error: unknown type name 'foo'\n")


def test_what_is_said_on_descriptor_2_is_heard() -> None:
    import os

    with installed.heard() as said:
        os.write(2, b"a message\n")
        assert said() == "a message\n"
