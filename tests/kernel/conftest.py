# SPDX-License-Identifier: Apache-2.0
"""The kernel ring: root, and network namespaces and cgroups that go away with their test."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.kernel.agents import own_instance, sweep_instances
from tests.kernel.peers import native
from tests.kernel.peers.netns import Netns, Wire, cgroup_root, make_cgroup, make_netns, make_wire, sweep


@pytest.fixture(scope="session", autouse=True)
def _ready(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Root, no leftovers of killed runs, and the peers' library."""
    if os.geteuid() != 0:
        pytest.skip("the kernel ring needs root (scripts/test asks for it)")
    sweep()
    sweep_instances()
    os.environ[native.VARIABLE] = str(native.build(tmp_path_factory.mktemp("native")))


@pytest.fixture
def instance() -> Iterator[str]:
    """Name of an instance whose every trace is gone after the test."""
    with own_instance() as name:
        yield name


@pytest.fixture
def netns() -> Iterator[Netns]:
    """A namespace of the test's own with ``lo`` up."""
    with make_netns() as made:
        yield made


@pytest.fixture
def wire() -> Iterator[Wire]:
    """Two namespaces of the test's own, ``wire.client`` and ``wire.server``, and a veth pair between them."""
    with make_wire() as made:
        yield made


@pytest.fixture
def cgroup() -> Iterator[Callable[..., Path]]:
    """``cgroup("docker/<64 hex>")`` makes a cgroup v2 folder; its inode is the cgroup id."""
    root = cgroup_root()
    if root is None:
        pytest.skip("no cgroup v2 is mounted")
    with ExitStack() as stack:
        yield lambda below="": stack.enter_context(make_cgroup(root, below))
