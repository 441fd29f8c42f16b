# SPDX-License-Identifier: Apache-2.0
"""Installed kernel headers, for kernels without BTF: where they are, and what to install.

BCC then compiles ``bpf/weir.c`` straight against them (``bpf/kernel.h``, ``WEIR_HEADERS``).
"""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from weir.errors import KernelError
from weir.kernel import sources
from weir.kernel.headers import Wanted

#: Package of the running kernel's headers by distribution (os-release, ID and ID_LIKE), most special first.
_INSTALL = {
    "raspbian": "apt-get install linux-headers-{release}, or raspberrypi-kernel-headers",
    "debian": "apt-get install linux-headers-{release}",
    "ubuntu": "apt-get install linux-headers-{release}",
    "fedora": "dnf install kernel-devel-{release}",
    "rhel": "dnf install kernel-devel-{release}",
    "centos": "dnf install kernel-devel-{release}",
    "amzn": "dnf install kernel-devel-{release}",
    "suse": "zypper install kernel-default-devel",
    "opensuse": "zypper install kernel-default-devel",
    "arch": "pacman -S linux-headers",
    "alpine": "apk add linux-lts-dev",
}
_INCOMPLETE = re.compile(r"incomplete type 'struct (bpf_wq|bpf_rb_root|bpf_rb_node|bpf_refcount)'")
_MISSING = re.compile(r"no member named '(\w+)' in 'struct (\w+)'")


def folder(release: str, root: Path = Path("/")) -> Path | None:
    """The prepared headers of this release, or the archive that the kernel itself has (CONFIG_IKHEADERS)."""
    build = root / "lib/modules" / release / "build"
    if (build / "include/generated/autoconf.h").exists():
        return build
    archive = root / "sys/kernel/kheaders.tar.xz"
    return archive if archive.exists() else None


def remedy(release: str, root: Path = Path("/")) -> str:
    """How to get them here; in a container that is the host's to do."""
    fields = {}
    for name in ("etc/os-release", "usr/lib/os-release"):
        with contextlib.suppress(OSError):
            lines = (root / name).read_text(encoding="utf-8", errors="replace").splitlines()
            fields = {k: v.strip("\"'") for k, _, v in (line.partition("=") for line in lines)}
            break
    ids = [fields.get("ID", ""), *fields.get("ID_LIKE", "").split()]
    known = (_INSTALL[name.partition("-")[0]] for name in ids if name.partition("-")[0] in _INSTALL)
    install = next(known, "install the header package of Linux {release}").format(release=release)
    if any(
        (root / mark).exists() for mark in (".dockerenv", "run/.containerenv", "run/secrets/kubernetes.io")
    ):
        install = (
            "install its header package on the host and mount it here"
            " (-v /lib/modules:/lib/modules:ro -v /usr/src:/usr/src:ro)"
        )
    return install


def refusal(release: str, root: Path = Path("/")) -> str:
    """One line for a kernel with neither BTF nor headers."""
    return (
        f"this kernel (Linux {release}) has no BTF (/sys/kernel/btf/vmlinux), and its headers are not"
        f" installed (/lib/modules/{release}/build): {remedy(release, root)}; or boot a kernel with"
        " CONFIG_DEBUG_INFO_BTF=y"
    )


def probe_text(wanted: Sequence[Wanted]) -> str:
    """C text with one use of every optional member; clang names those that are not there."""
    uses = [(w.struct, name) for w in wanted if not w.optional for name, opt in w.members.items() if opt]
    functions = (f"int f{n}(struct {s} *p) {{ return !&p->{m}; }}" for n, (s, m) in enumerate(uses))
    return "\n".join([sources.unit("kernel.h"), *functions])


def flags(wanted: Sequence[Wanted], compiles: Callable[[str, list[str]], str]) -> list[str]:
    """Compiler flags for headers: ``-DHAVE_<struct>__<member>=1`` of the optional members that are there.

    ``compiles`` (text, flags) gives the compiler's messages. KernelError where it stumbles over
    anything but a missing member.
    """
    found = ["-DWEIR_HEADERS=1"]
    text = probe_text(wanted)
    said = compiles(text, [*found, "-ferror-limit=0"])
    if _INCOMPLETE.search(said):
        found.append("-DWEIR_OPAQUE=1")
        said = compiles(text, [*found, "-ferror-limit=0"])
    other = [line for line in said.splitlines() if "error: " in line and not _MISSING.search(line)]
    if other:
        raise KernelError(
            f"the installed headers do not compile with this BCC ({other[0].strip()}): take a newer"
            " python3-bpfcc, or a kernel with CONFIG_DEBUG_INFO_BTF=y"
        )
    missing = {(struct, member) for member, struct in _MISSING.findall(said)}
    names = [(w.struct, m) for w in wanted if not w.optional for m, optional in w.members.items() if optional]
    return found + [f"-DHAVE_{struct}__{name}=1" for struct, name in names if (struct, name) not in missing]


@contextlib.contextmanager
def heard() -> Iterator[Callable[[], str]]:
    """What is written to file descriptor 2 meanwhile (clang, inside of BCC); bounded to 1 MB when read."""
    with tempfile.TemporaryFile() as said:
        before = os.dup(2)
        os.dup2(said.fileno(), 2)

        def read() -> str:
            said.seek(0)
            return said.read(1 << 20).decode("utf-8", "replace")

        try:
            yield read
        finally:
            os.dup2(before, 2)
            os.close(before)
