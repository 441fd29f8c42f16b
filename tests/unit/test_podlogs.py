# SPDX-License-Identifier: Apache-2.0
"""Names of pods without the API."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.synthetic import Clock
from weir.identity.podlogs import LocalPods
from weir.identity.runtimes import Roots
from weir.identity.types import Owner

UID, STATIC = "9f8ff2f0-3a06-4c1b-a0b8-4c7c7f9c0e11", "0123456789abcdef0123456789abcdef"


def pod(uid: str) -> Owner:
    return Owner("6be121207c74", "container", container_id="6be121207c74" * 5 + "6be1", pod=uid, uid=uid,
                 process="nginx", attribution="cgroup")  # fmt: skip


def test_names_by_uid(tmp_path: Path) -> None:
    for name in (
        f"shop_web-6d4b-x7k2p_{UID}",
        f"kube-system_etcd-cp.example_{STATIC}",
        "not_a",
        "x_y_z_" + UID,
    ):
        (tmp_path / name).mkdir()
    pods = LocalPods(tmp_path, Clock())
    web = pods.named(pod(UID))
    assert (web.workload, web.kind, web.namespace, web.pod) == (
        "web-6d4b-x7k2p",
        "pod",
        "shop",
        "web-6d4b-x7k2p",
    )
    assert (web.uid, web.process, web.attribution) == (UID, "nginx", "cgroup")
    etcd = pods.named(pod(STATIC))
    assert (etcd.namespace, etcd.pod) == ("kube-system", "etcd-cp.example")


def test_a_pod_that_comes_later(tmp_path: Path) -> None:
    """It is looked for again, once a second at most; what was known is kept where nothing can be read."""
    clock = Clock()
    pods = LocalPods(tmp_path, clock)
    assert pods.named(pod(UID)) == pod(UID)
    folder = tmp_path / f"shop_web_{UID}"
    folder.mkdir()
    assert pods.named(pod(UID)) == pod(UID)
    clock.now += 1
    assert pods.named(pod(UID)).pod == "web"
    folder.rmdir()
    tmp_path.rmdir()
    clock.now += 1
    assert pods.named(pod(STATIC)) == pod(STATIC)
    assert pods.named(pod(UID)).pod == "web"


def test_no_folder(tmp_path: Path) -> None:
    assert LocalPods(tmp_path / "none", Clock()).named(pod(UID)) == pod(UID)


@pytest.mark.parametrize("place", ["host", "proc/1/root"])
def test_files_of_the_host_from_within_a_container(tmp_path: Path, place: str) -> None:
    top = tmp_path / place
    (top / "var/log/pods").mkdir(parents=True)
    found = Roots.found(tmp_path / "proc", tmp_path / "host")
    assert found.pods == (Path("/var/log/pods") if Path("/var/log/pods").exists() else top / "var/log/pods")
    assert found.nerdctl == Path("/var/lib/nerdctl")  # nowhere: where it would be


def test_a_host_that_may_not_be_looked_at(tmp_path: Path) -> None:
    """As process 1 of another user is: whatever the error, the usual places remain."""
    (tmp_path / "1").mkdir()
    (tmp_path / "1/root").symlink_to("root")  # ELOOP
    assert Roots.found(tmp_path, tmp_path / "none").nerdctl == Roots().nerdctl
