# SPDX-License-Identifier: Apache-2.0
"""The image ring: Weir's image, built by its Dockerfile and run by real engines."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.image import engine
from tests.image.engine import Docker
from tests.kernel.peers.netns import cgroup_root, make_cgroup, make_netns, sweep


@pytest.fixture(scope="session", autouse=True)
def _ready() -> None:
    if os.geteuid() != 0:
        pytest.skip("the image ring needs root (scripts/test asks for it)")
    if missing := engine.needed():
        pytest.skip(f"missing: {missing}")
    sweep()


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("docker")


@pytest.fixture(scope="session")
def built(folder: Path) -> str:
    """The image is there; what its making said."""
    with engine.docker(folder / "build", "/weirt-build", None) as daemon:
        said = engine.build(daemon)
    engine.remove_cgroups("weirt-build")
    print(said)
    return said


@pytest.fixture(scope="session")
def docker(folder: Path, built: str) -> Iterator[Docker]:
    """An engine whose host is a network namespace, whose containers are in one cgroup; the image is there."""
    assert built
    root = cgroup_root()
    if root is None:
        pytest.skip("no cgroup v2 is mounted")
    with ExitStack() as stack:
        cgroup = stack.enter_context(make_cgroup(root))
        stack.callback(engine.remove_cgroups, cgroup.name)
        host = stack.enter_context(make_netns())
        yield stack.enter_context(engine.docker(folder / "run", f"/{cgroup.name}", host))
