# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

from weir.identity.containers import (
    Container,
    choose_path,
    parse_container,
    parse_pod,
    parse_unit,
)

ID = "0123456789abcdef" * 4
OTHER = "fedcba9876543210" * 4
UID = "12345678-9abc-def0-1234-56789abcdef0"
UID_ = UID.replace("-", "_")
SLICE = f"/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{UID_}.slice"


@pytest.mark.parametrize(
    ("path", "runtime", "pod"),
    [
        (f"/docker/{ID}", "docker", ""),
        (f"/system.slice/docker-{ID}.scope", "docker", ""),
        (f"/actions_job/{ID}", "docker", ""),
        (f"/docker/{OTHER}/docker/{ID}", "docker", ""),
        (f"/docker/{OTHER}/kubelet/kubepods/besteffort/pod{UID}/{ID}", "", UID),
        (f"/kubepods/burstable/pod{UID}/{ID}", "", UID),
        (f"/kubepods/pod{UID}/{ID}", "", UID),
        (f"/kubepods/besteffort/pod{'ab' * 16}/{ID}", "", "ab" * 16),
        (f"{SLICE}/cri-containerd-{ID}.scope", "containerd", UID),
        (f"{SLICE}/docker-{ID}.scope", "docker", UID),
        (f"{SLICE}/crio-{ID}.scope", "cri-o", UID),
        (f"{SLICE}/crio-{ID}.scope/container", "cri-o", UID),
        (f"/kubepods/burstable/pod{UID}/crio-{ID}", "cri-o", UID),
        (f"/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-pod{UID_}.slice/cri-containerd-{ID}.scope",
         "containerd", UID),
        (f"/system.slice/containerd.service/kubepods-burstable-pod{UID_}.slice:cri-containerd:{ID}",
         "containerd", UID),
        (f"/libpod_parent/libpod-{ID}", "podman", ""),
        (f"/machine.slice/libpod-{ID}.scope", "podman", ""),
        (f"/machine.slice/libpod-{ID}.scope/container", "podman", ""),
        (f"/machine.slice/machine-libpod_pod_{OTHER}.slice/libpod-{ID}.scope", "podman", ""),
        (f"/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-{ID}.scope", "podman", ""),
        (f"/system.slice/web.service/libpod-payload-{ID}", "podman", ""),
        (f"/system.slice/nerdctl-{ID}.scope", "containerd", ""),
    ],
)  # fmt: skip
def test_container_of_a_path(path: str, runtime: str, pod: str) -> None:
    assert parse_container(path) == Container(runtime, ID, pod)


@pytest.mark.parametrize(
    "path",
    ["", "/", "/system.slice/nginx.service", "/init.scope", f"/machine.slice/libpod-conmon-{ID}.scope",
     f"{SLICE}/crio-conmon-{ID}.scope", f"/docker/{ID[:12]}", f"{SLICE}", f"/docker/{ID.upper()}"],
)  # fmt: skip
def test_paths_without_a_container(path: str) -> None:
    assert parse_container(path) is None


def test_pod_of_a_path_without_a_container() -> None:
    assert parse_pod(SLICE) == UID
    assert parse_pod("/system.slice/podman.service") == ""


@pytest.mark.parametrize(
    ("path", "unit"),
    [
        ("/system.slice/nginx.service", "nginx.service"),
        ("/system.slice/system-getty.slice/getty@tty1.service", "getty@tty1.service"),
        ("/system.slice/postgresql.service/worker", "postgresql.service"),
        ("/user.slice/user-1000.slice/user@1000.service/app.slice/syncthing.service", "syncthing.service"),
        ("/user.slice/user-1000.slice/session-3.scope", ""),
        ("/user.slice/user-1000.slice/user@1000.service/app.slice/app-gnome-Firefox-12.scope", ""),
        ("/user.slice/user-1000.slice/user@1000.service/init.scope", ""),
        ("/user.slice/user-1000.slice/user@1000.service", ""),
        ("/init.scope", ""),
        ("/", ""),
        ("", ""),
    ],
)
def test_unit_of_a_path(path: str, unit: str) -> None:
    assert parse_unit(path) == unit


@pytest.mark.parametrize(
    ("text", "path"),
    [
        (f"0::/docker/{ID}\n", f"/docker/{ID}"),
        (f"9:name=systemd:/\n8:pids:/docker/{ID}\n4:memory:/docker/{ID}\n0::/\n", f"/docker/{ID}"),
        ("9:name=systemd:/system.slice/ssh.service\n4:memory:/\n0::/\n", "/system.slice/ssh.service"),
        (f"9:name=systemd:/system.slice/docker.service\n4:memory:/docker/{ID}\n", f"/docker/{ID}"),
        ("9:name=systemd:/\n4:memory:/\n0::/\n", "/"),
        ("0::/odd:name\n", "/odd:name"),
        ("", "/"),
    ],
)
def test_telling_path_of_proc_cgroup(text: str, path: str) -> None:
    assert choose_path(text) == path
