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
from tests.kernel.peers.dialogue import Dialogues
from tests.kernel.peers.netns import Netns, Wire, cgroup_root, make_cgroup, make_netns, make_wire, sweep
from tests.kernel.watch import Watch, asking


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


#: Of servers with a port of their own: clients do not get these by chance.
_SERVERS = "3306,5300,5432,6379,8080,8081"


@pytest.fixture(scope="module")
def place() -> Iterator[Netns]:
    """A namespace for a module's tests, in which requests are looked for."""
    with make_netns() as made:
        made.sysctl("net.ipv4.ip_local_reserved_ports", _SERVERS)
        yield made


@pytest.fixture(scope="module")
def watch(place: Netns) -> Iterator[Watch]:
    """Weir, with requests, for :func:`place`."""
    with asking(place) as made:
        yield made


@pytest.fixture(scope="module")
def talks(place: Netns) -> Iterator[Dialogues]:
    """Conversations in :func:`place`."""
    with Dialogues(place) as made:
        yield made


@pytest.fixture(autouse=True)
def _mark_requests(request: pytest.FixtureRequest) -> None:
    """What was counted before a test is not its own."""
    if {"place", "watch"} <= set(request.fixturenames):
        request.getfixturevalue("watch").mark()
