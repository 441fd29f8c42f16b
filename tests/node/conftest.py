# SPDX-License-Identifier: Apache-2.0
"""The node ring: a real kubelet and containerd, with Weir's image in a DaemonSet."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.image import engine
from tests.image.conftest import built, folder
from tests.kernel.peers.netns import cgroup_root, sweep
from tests.node import machine
from tests.node.machine import Machine

__all__ = ["built", "folder"]
#: The next version, of the same programs; and one of another layout of maps.
NEXT, OTHER = "weir:next", "weir:other"
_SITE = "/opt/weir/lib/python3*/site-packages"
_CHANGES = {
    NEXT: f"sed -i 's/^Version: .*/Version: 0.1.1/' {_SITE}/weir*.dist-info/METADATA",
    OTHER: rf"sed -i 's/^ABI = \([0-9]*\)$/ABI = 9\1/' {_SITE}/weir/kernel/layout.py"
    r" && sed -i 's/define WEIR_ABI \([0-9]*\)$/define WEIR_ABI 9\1/' $(grep -rl 'e WEIR_ABI' /opt/weir)",
}


@pytest.fixture(scope="session", autouse=True)
def _ready() -> None:
    if os.geteuid() != 0:
        pytest.skip("the node ring needs root (scripts/test asks for it)")
    if missing := engine.needed() or machine.needed():
        pytest.skip(f"missing: {missing}")
    if cgroup_root() is None:
        pytest.skip("no cgroup v2 is mounted")
    sweep()


@pytest.fixture(scope="session")
def node(folder: Path, built: str, _ready: None) -> Iterator[Machine]:
    """A node that is ready and has the images."""
    assert built
    with ExitStack() as stack:
        name = f"weirt-{os.getpid()}-node"
        stack.callback(engine.remove_cgroups, name)
        machine.make_cgroups(name)
        made = Machine(folder, stack, f"/{name}")
        with engine.docker(folder / "build", "/weirt-build", None) as daemon:
            machine.pause_image(daemon, folder)
            for tag, change in _CHANGES.items():
                daemon.run("build", "-t", tag, "-", stdin=f"FROM {engine.TAG}\nRUN {change}\n")
            made.load(daemon, engine.TAG, NEXT, OTHER, machine.PAUSE)
        engine.remove_cgroups("weirt-build")
        yield made
