# SPDX-License-Identifier: Apache-2.0
"""``bpf/weir.c`` → programs and maps, with BCC (imported here only, in the loader's process).

The kernel's types come from its BTF, by a header tree of the few structs that are named; where it has
none, from its installed headers.
"""

from __future__ import annotations

import ctypes
import hashlib
import importlib.util
import os
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from weir.errors import KernelError
from weir.kernel import bpf, headers, installed, layout, sources
from weir.kernel.btf import KERNEL_BTF, Btf
from weir.kernel.compiled import Cache, Compiled, MapSpec, unlinked
from weir.kernel.pins import HEADERS

FLAGS = ["-Wno-everything", "-fms-extensions"]


def build(
    types: Btf | None, defines: list[str], scratch: Path, cache: Cache, unit: str = "weir.c"
) -> tuple[Compiled, bool]:
    """Compile a file of ``bpf/``, or take what was kept of an earlier time; whether it was.

    ``types`` None means installed headers, which can change under the same name: nothing is kept of these.
    KernelError where the programs do not compile. ``scratch`` takes temporary files.
    """
    if types is None:
        return _build(None, defines, scratch, unit), False
    digest = _digest(defines, unit)
    kept = cache.read(digest)
    if kept is not None:
        return kept, True
    compiled = _build(types, defines, scratch, unit)
    cache.write(digest, compiled)
    return compiled, False


def _digest(defines: list[str], unit: str) -> str:
    """Changes with all that a build depends on: sources, options, kernel, BCC, what writes the headers."""
    base, own = sources.folder(), Path(__file__).parent
    made = hashlib.sha256(KERNEL_BTF.read_bytes())
    files = [
        base / "shim/kconfig.h",
        *(own / f"{name}.py" for name in ("compiler", "compiled", "headers", "btf")),
    ]
    for part in (*(path.read_bytes() for path in files), _source(unit).encode(), "\0".join(defines).encode(),
                 "\0".join(map(str, headers.wanted())).encode(), repr(_bcc()).encode()):  # fmt: skip
        made.update(hashlib.sha256(part).digest())
    return made.hexdigest()


def _bcc() -> list[tuple[str, int, int]]:
    """What tells one BCC from another without loading it."""
    found = importlib.util.find_spec("bcc")
    folders = [Path(place) for place in (found.submodule_search_locations or [])] if found else []
    parts = [path for folder in folders for path in sorted(folder.glob("*.py"))]
    parts += sorted(Path("/usr/lib").glob("*-linux-gnu/libbcc.so*")) + sorted(
        Path("/usr/lib").glob("*-linux-gnu/libclang-cpp.so*")
    )
    return [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in parts]


def _source(unit: str) -> str:
    return sources.unit(unit) + "\n" + layout.static_asserts()


def _build(types: Btf | None, defines: list[str], scratch: Path, unit: str) -> Compiled:
    if types is None:
        from bcc import BPF, lib  # type: ignore[import-not-found,import-untyped,unused-ignore]

        flags = _installed_flags(BPF)
        _no_cgroup_scope(flags, defines)
        return _extract(_compile(BPF, _source(unit), flags + defines), lib)
    with tempfile.TemporaryDirectory(prefix=HEADERS, dir=scratch) as tree:
        os.environ["BCC_KERNEL_SOURCE"] = tree
        from bcc import BPF, lib

        shim = (sources.folder() / "shim/kconfig.h").read_text(encoding="utf-8")
        headers.write_tree(Path(tree), types, headers.wanted(), shim, Path(lib._name).read_bytes()
                           if os.path.isabs(lib._name) else _library(lib._name))  # fmt: skip
        os.chdir(tree)  # BCC looks for headers in the current folder first
        try:
            return _extract(_compile(BPF, _source(unit), defines), lib)
        finally:
            os.chdir("/")


def _extract(built: Any, lib: Any) -> Compiled:
    """Programs and maps out of BCC's hands, whose own copy of the maps goes."""
    module = built.module
    lib.bpf_table_name.restype = ctypes.c_char_p
    lib.bpf_table_name.argtypes = lib.bpf_table_fd_id.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
    lib.bpf_num_tables.argtypes = [ctypes.c_void_p]
    maps, fds = [], {}
    for index in range(lib.bpf_num_tables(module)):
        fd = lib.bpf_table_fd_id(module, index)
        fds[fd] = index
        maps.append(MapSpec(lib.bpf_table_name(module, index).decode(), *bpf.map_info(fd)))
    programs = {}
    for index in range(lib.bpf_num_functions(module)):
        name = lib.bpf_function_name(module, index)
        code = ctypes.string_at(lib.bpf_function_start(module, name), lib.bpf_function_size(module, name))
        programs[name.decode()] = unlinked(code, fds)
    built.cleanup()
    return Compiled(tuple(maps), programs)


def _no_cgroup_scope(flags: list[str], defines: list[str]) -> None:
    """BCC brings its own linux/bpf.h, with more attach types than older headers: struct cgroup is another."""
    if "-DHAVE_cgroup__ancestors=1" not in flags and any("SCOPE_CGROUP" in flag for flag in defines):
        raise KernelError(
            "--cgroup cannot be used on a kernel of this age without BTF; leave it out, or use --netns"
        )


def _compile(bcc: Callable[..., Any], text: str, flags: list[str]) -> Any:
    try:
        return bcc(text=text, cflags=FLAGS + flags)
    except Exception as error:  # noqa: BLE001 bcc raises nothing narrower
        raise KernelError(f"the BPF programs do not compile here: {error}") from None


def _installed_flags(bcc: Callable[..., Any]) -> list[str]:
    """Flags for the installed headers, which BCC finds by itself."""
    release = os.uname().release
    if "BCC_KERNEL_SOURCE" not in os.environ and installed.folder(release) is None:
        raise KernelError(installed.refusal(release))
    return installed.flags(headers.wanted(), partial(messages, bcc))


def messages(bcc: Callable[..., Any], text: str, flags: list[str]) -> str:
    """Compile for what the compiler says; "" where it says nothing."""
    with installed.heard() as said:
        try:
            bcc(text=text, cflags=FLAGS + flags)
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
