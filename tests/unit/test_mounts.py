# SPDX-License-Identifier: Apache-2.0
"""Which mounts show a whole file system, from /proc/self/mountinfo as hosts and containers have it."""

from __future__ import annotations

from pathlib import Path

import pytest

from weir.kernel.mounts import mounted

LINE = "35 24 0:30 {root} {point} rw,nosuid shared:9 - {kind} {kind} rw,nsdelegate"


@pytest.mark.parametrize(
    ("root", "whole"),
    [
        ("/", True),
        ("/..", True),  # the host's root, read in a cgroup namespace below it
        ("/../../..", True),
        ("/docker/0123abcd", False),  # a container's part of the tree
        ("/../kubepods.slice", False),
        ("/..hidden", False),
    ],
)
def test_root_of_the_mount(tmp_path: Path, root: str, whole: bool) -> None:
    info = tmp_path / "mountinfo"
    info.write_text(LINE.format(root=root, point="/sys/fs/cgroup", kind="cgroup2") + "\n")
    assert [point for point, _ in mounted("cgroup2", info)] == [Path("/sys/fs/cgroup")] * whole
    assert list(mounted("bpf", info)) == []


def test_a_name_with_a_space(tmp_path: Path) -> None:
    info = tmp_path / "mountinfo"
    info.write_text(LINE.format(root="/", point="/mnt/a\\040b", kind="bpf") + "\n")
    assert list(mounted("bpf", info)) == [(Path("/mnt/a b"), "rw,nosuid,rw,nsdelegate")]
