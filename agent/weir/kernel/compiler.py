# SPDX-License-Identifier: Apache-2.0
"""``bpf/weir.c`` → programs and maps, with BCC (imported here only, in the loader's process).

The kernel's types come from its BTF, by a header tree of the few structs that are named; where it has
none, from its installed headers.
"""

from __future__ import annotations

import ctypes
import os
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from weir.errors import KernelError
from weir.kernel import headers, installed, layout, sources
from weir.kernel.btf import Btf
from weir.kernel.pins import HEADERS

FLAGS = ["-Wno-everything", "-fms-extensions"]


class Module:
    """The compiled programs and their maps; ``types`` None means installed headers.

    KernelError where they do not compile. ``scratch`` takes temporary files.
    """

    def __init__(self, types: Btf | None, defines: list[str], scratch: Path) -> None:
        if types is None:
            from bcc import BPF, lib  # type: ignore[import-not-found,import-untyped,unused-ignore]

            self._lib = lib
            flags = _installed_flags(BPF)
            _no_cgroup_scope(flags, defines)
            self._bpf = _compile(
                BPF, sources.unit("weir.c") + "\n" + layout.static_asserts(), flags + defines
            )
            return
        with tempfile.TemporaryDirectory(prefix=HEADERS, dir=scratch) as tree:
            os.environ["BCC_KERNEL_SOURCE"] = tree
            from bcc import BPF, lib

            self._lib = lib
            base = sources.folder()
            shim = (base / "shim/kconfig.h").read_text(encoding="utf-8")
            headers.write_tree(Path(tree), types, headers.wanted(), shim, Path(lib._name).read_bytes()
                               if os.path.isabs(lib._name) else _library(lib._name))  # fmt: skip
            os.chdir(tree)  # BCC looks for headers in the current folder first
            try:
                self._bpf = _compile(BPF, sources.unit("weir.c") + "\n" + layout.static_asserts(), defines)
            finally:
                os.chdir("/")

    def map_fd(self, name: str) -> int:
        """A map's fd; -1 if this build has none of that name."""
        return int(self._lib.bpf_table_fd(self._bpf.module, name.encode()))

    def code(self, name: str) -> bytes:
        """A program's instructions."""
        start = self._lib.bpf_function_start(self._bpf.module, name.encode())
        size = self._lib.bpf_function_size(self._bpf.module, name.encode())
        return ctypes.string_at(start, size) if start else b""


def _no_cgroup_scope(flags: list[str], defines: list[str]) -> None:
    """BCC brings its own linux/bpf.h, with more attach types than older headers: struct cgroup is another."""
    if "-DHAVE_cgroup__ancestors=1" not in flags and any("SCOPE_CGROUP" in flag for flag in defines):
        raise KernelError(
            "--cgroup cannot be used on a kernel of this age without BTF; leave it out, or use --netns"
        )


def _compile(bpf: Callable[..., Any], text: str, flags: list[str]) -> Any:
    try:
        return bpf(text=text, cflags=FLAGS + flags)
    except Exception as error:  # noqa: BLE001 bcc raises nothing narrower
        raise KernelError(f"the BPF programs do not compile here: {error}") from None


def _installed_flags(bpf: Callable[..., Any]) -> list[str]:
    """Flags for the installed headers, which BCC finds by itself."""
    release = os.uname().release
    if "BCC_KERNEL_SOURCE" not in os.environ and installed.folder(release) is None:
        raise KernelError(installed.refusal(release))
    return installed.flags(headers.wanted(), partial(messages, bpf))


def messages(bpf: Callable[..., Any], text: str, flags: list[str]) -> str:
    """Compile for what the compiler says; "" where it says nothing."""
    with installed.heard() as said:
        try:
            bpf(text=text, cflags=FLAGS + flags)
        except Exception as error:  # noqa: BLE001 bcc raises nothing narrower
            return said() if "error: " in said() else f"error: {error}"
        return ""


def _library(name: str) -> bytes:
    """The bytes of a shared library that is already in this process."""
    for line in Path("/proc/self/maps").read_text(encoding="utf-8").splitlines():
        path = line.split(maxsplit=5)[-1]
        if "/" + name.split(".so", maxsplit=1)[0] + ".so" in path:
            return Path(path).read_bytes()
    raise KernelError(f"{name} is not where the loader can read it")
