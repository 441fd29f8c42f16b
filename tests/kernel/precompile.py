# SPDX-License-Identifier: Apache-2.0
"""Builds for a kernel that does not run here, for its guest: one takes a minute there, seconds here.

``python -m tests.kernel.precompile VMLINUZ FOLDER VARIANT...`` makes what the tests of ``scripts/kernels``
load, as the loader names it in its cache. What is not among it, the guest compiles.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from unittest.mock import patch

from tests.kernel.codegen import Offline, kernel_btf, module_image, section
from weir.kernel import compiler, plan
from weir.kernel.btf import Btf
from weir.kernel.compiled import Cache
from weir.kernel.options import KernelOptions

_NETNS, _CGROUP = (1,), ((1, "/"),)
#: What is compiled in, of the tests that run in a guest; of variants beside the best one the first three.
OPTIONS = (
    KernelOptions(requests=0, netns=_NETNS),
    KernelOptions(requests=0, cgroups=_CGROUP),
    KernelOptions(netns=_NETNS, tls=1, routes=("/users/{id}",)),
    KernelOptions(netns=_NETNS, tls=1, routes=("/", "/**")),
    KernelOptions(netns=_NETNS),
    KernelOptions(netns=_NETNS, nat="off", routes=("/",)),
    KernelOptions(netns=_NETNS, nat="off", tls=1),
)
BESIDE = 3


def builds(variants: list[str], features: Offline) -> Iterator[tuple[str, list[str]]]:
    """File of ``bpf/`` and flags of each."""
    for number, variant in enumerate(variants):
        for options in OPTIONS[: BESIDE if number else None]:
            defines = plan.defines(
                variant, options, features.iterators, features.cmpxchg, not features.conntrack
            )
            yield "weir.c", defines
            if options.tls:
                yield "weir_tls.c", [*defines, "-DWEIR_USER=1"]


def main(vmlinuz: Path, folder: Path, variants: list[str]) -> None:
    """Fill the folder."""
    blob = kernel_btf(vmlinuz)
    types = Btf(blob)
    for module in (vmlinuz.parent / "lib/modules").glob("*/kernel/net/netfilter/nf_conntrack.ko*"):
        with suppress(ValueError):  # before Linux 5.11 modules have none
            types = types.with_module(section(module_image(module), b".BTF"))
    features = Offline(types, kprobes=Path("/"))
    with ExitStack() as stack:
        scratch = stack.enter_context(tempfile.TemporaryDirectory(prefix="weir-precompile-"))
        image = Path(scratch, "vmlinux")
        image.write_bytes(blob)
        stack.enter_context(patch.object(compiler, "KERNEL_BTF", image))
        for unit, defines in builds(variants, features):
            compiler.build(types, defines, Path(scratch), Cache(folder), unit)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:])
