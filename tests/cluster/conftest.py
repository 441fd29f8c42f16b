# SPDX-License-Identifier: Apache-2.0
"""The cluster ring: a real API server, nodes in network namespaces, and Weir beside them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.cluster.control import ROOT, ControlPlane, programs
from tests.cluster.nodes import Cluster, make_cluster
from tests.kernel.conftest import _ready, instance

__all__ = ["_ready", "instance"]


@pytest.fixture(scope="session")
def control(_ready: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """One API server for the whole ring, with the permissions of daemonset/."""
    made = ControlPlane(programs(), tmp_path_factory.mktemp("control"))
    try:
        made.start()
        for namespace in ("weir", "prod", "test"):
            made.api.create_namespace({"metadata": {"name": namespace}})
        made.apply(ROOT / "daemonset/base/rbac.yaml")
        made.apply(ROOT / "daemonset/kube-cache/rbac.yaml")
        yield made
    finally:
        made.close()


@pytest.fixture
def cluster(control: ControlPlane) -> Iterator[Cluster]:
    """A cluster without nodes yet."""
    with make_cluster(control) as made:
        yield made


@pytest.fixture
def access(control: ControlPlane, tmp_path: Path) -> Callable[..., list[str]]:
    """Options by which the agent reaches the API as its service account does."""
    token = tmp_path / "token"
    token.write_text(control.token("weir", "weir"))

    def options(node: str, *more: str) -> list[str]:
        return ["--api-server", control.url, "--token-file", str(token), "--ca-file", str(control.ca),
                "--node-name", node, *more]  # fmt: skip

    return options
