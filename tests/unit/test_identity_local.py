# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
from pathlib import Path

import psutil
import pytest

from tests.unit.synthetic import Clock, roots
from weir.errors import ConfigError
from weir.identity.cache import Cache
from weir.identity.cgroups import CgroupPaths, find_cgroup2
from weir.identity.cidrs import Cidrs, host_addresses, packed, text
from weir.identity.local import LocalOwners
from weir.identity.process import Processes
from weir.identity.runtimes import ContainerNames

ID = "0123456789abcdef" * 4


def owners(tmp: Path, root: Path | None = None) -> LocalOwners:
    clock = Clock()
    return LocalOwners(
        CgroupPaths(root, clock), ContainerNames(roots(tmp), clock), Processes(tmp / "proc", clock)
    )


def test_id_is_the_inode_of_the_folder(tmp_path: Path) -> None:
    inner = tmp_path / "system.slice" / "nginx.service"
    inner.mkdir(parents=True)
    paths = CgroupPaths(tmp_path, Clock())
    assert paths.path(inner.stat().st_ino) == "/system.slice/nginx.service"
    assert paths.path(tmp_path.stat().st_ino) == "/"


def test_a_miss_walks_again_but_not_at_once(tmp_path: Path) -> None:
    clock = Clock()
    paths = CgroupPaths(tmp_path, clock, min_walk=1, negative_ttl=30)
    assert paths.path(1 << 60) is None
    (tmp_path / "late").mkdir()
    late = (tmp_path / "late").stat().st_ino
    assert paths.path(late) is None
    assert paths.walks == 1
    clock.now += 1
    assert paths.path(late) == "/late"
    assert paths.path(1 << 60) is None  # still known to be missing: no walk
    assert paths.walks == 2
    clock.now += 30
    assert paths.path(1 << 60) is None
    assert paths.walks == 3


def test_a_cgroup_that_is_gone_keeps_its_path(tmp_path: Path) -> None:
    clock = Clock()
    folder = tmp_path / "docker" / ID
    folder.mkdir(parents=True)
    inode = folder.stat().st_ino
    paths = CgroupPaths(tmp_path, clock)
    assert paths.path(inode) == f"/docker/{ID}"
    folder.rmdir()
    clock.now += 3600
    assert paths.path(1 << 60) is None
    assert paths.path(inode) == f"/docker/{ID}"


def test_caches_are_bounded_and_count_what_goes(tmp_path: Path) -> None:
    for number in range(10):
        (tmp_path / f"c{number}").mkdir()
    paths = CgroupPaths(tmp_path, Clock(), limit=4)
    paths.path(0)
    assert len(paths.cache) == 4
    assert paths.cache.evicted == 7
    cache: Cache[str, int] = Cache(2, Clock())
    cache.put("a", 1)
    cache.put("a", 2)
    assert (cache.get("a"), cache.evicted) == (2, 0)


def test_cgroup2_mount_is_found(tmp_path: Path) -> None:
    (tmp_path / "self").mkdir()
    (tmp_path / "self" / "mountinfo").write_text(
        "32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu\n"
        "41 31 0:38 / /sys/fs/cgroup/my\\040unified rw,relatime shared:3 - cgroup2 cgroup2 rw\n"
    )
    assert find_cgroup2(tmp_path) == Path("/sys/fs/cgroup/my unified")
    assert find_cgroup2(tmp_path / "nothing") is None


def test_real_ids_of_this_machine() -> None:
    root = find_cgroup2(Path("/proc"))
    if root is None:
        pytest.skip("no cgroup2 mount here")
    found = CgroupPaths(root, Clock()).path(root.stat().st_ino)
    assert found == "/"


def test_unit_then_process_then_unknown(tmp_path: Path) -> None:
    service = tmp_path / "cg" / "system.slice" / "redis.service"
    session = tmp_path / "cg" / "user.slice" / "session-2.scope"
    for folder in (service, session):
        folder.mkdir(parents=True)
    who = owners(tmp_path, tmp_path / "cg")
    unit = who.owner(service.stat().st_ino, 0, "redis-server")
    assert (unit.workload, unit.kind, unit.process, unit.attribution) == (
        "redis.service", "unit", "redis-server", "cgroup",
    )  # fmt: skip
    process = who.owner(session.stat().st_ino, 0, "bash")
    assert (process.workload, process.kind, process.attribution) == ("bash", "process", "process")
    nothing = who.owner(1 << 60, 0, "")
    assert (nothing.workload, nothing.kind, nothing.named) == ("unknown", "none", False)


def test_root_cgroup_asks_the_process(tmp_path: Path) -> None:
    process = tmp_path / "proc" / "77"
    process.mkdir(parents=True)
    (process / "comm").write_text("nginx\n")
    (process / "cgroup").write_text(f"4:memory:/docker/{ID}\n0::/\n")
    (tmp_path / "cg").mkdir()
    who = owners(tmp_path, tmp_path / "cg")
    root = (tmp_path / "cg").stat().st_ino
    found = who.owner(root, 77, "nginx")
    assert (found.workload, found.runtime, found.container_id) == (ID[:12], "docker", ID)
    # the tgid belongs to somebody else by now: its cgroup says nothing about our socket
    assert who.owner(root, 77, "curl").workload == "curl"
    assert who.owner(root, 78, "gone").workload == "gone"


def test_process_name_of_this_process() -> None:
    processes = Processes(Path("/proc"), Clock())
    me = psutil.Process().name()
    assert processes.name(os.getpid(), me[:15]) == me
    assert processes.name(os.getpid(), "") == me
    assert processes.name(os.getpid(), "other") == "other"
    assert processes.name(2**22 + 1, "gone") == "gone"
    assert processes.name(0, "") == ""


def test_longest_prefix_names_an_address() -> None:
    cidrs = Cidrs(["wide=10.0.0.0/8", "office=10.1.0.0/16", "one=10.1.2.3", "lab=fd00:1::/32"])

    def name(address: str, bits: int = 128) -> str:
        owner = cidrs.owner(packed(address), bits)
        return owner.workload if owner else ""

    assert [name(a) for a in ("10.9.9.9", "10.1.9.9", "10.1.2.3", "fd00:1:2::1", "192.0.2.1", "::1")] == [
        "wide", "office", "one", "lab", "", "",
    ]  # fmt: skip
    # a folded remote end is a network: a name of a part of it is not its name
    assert name("10.1.0.0", 96 + 16) == "office"
    assert name("10.0.0.0", 96 + 12) == "wide"
    assert name("10.0.0.0", 96 + 7) == ""


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        ("10.0.0.0/8", ["'10.0.0.0/8'", "NAME=CIDR"]),
        ("=10.0.0.0/8", ["NAME=CIDR"]),
        ("office=", ["NAME=CIDR"]),
        ("office=10.0.0.0/99", ["'10.0.0.0/99'", "NAME=CIDR"]),
        ("office=10.0.0.1/8", ["10.0.0.1/8", "10.0.0.0/8"]),
    ],
)
def test_bad_cidr_is_one_clear_line(bad: str, words: list[str]) -> None:
    with pytest.raises(ConfigError) as error:
        Cidrs([bad])
    assert "\n" not in str(error.value)
    assert all(word in str(error.value) for word in ["--cidr", *words])


def test_two_names_for_one_network_are_refused() -> None:
    with pytest.raises(ConfigError, match="'a' already"):
        Cidrs(["a=10.0.0.0/8", "b=10.0.0.0/8"])


def test_addresses_as_text() -> None:
    assert [text(packed(a)) for a in ("10.0.0.1", "fe80::1%eth0", "::1")] == ["10.0.0.1", "fe80::1", "::1"]
    assert packed("127.0.0.1") in host_addresses()


def test_mountinfo_that_is_cut(tmp_path: Path) -> None:
    """Lines of other lengths than proc(5) has are not for us; the next one may be."""
    (tmp_path / "self").mkdir()
    lines = [
        "36 35 0:3 / - cgroup2 c rw",
        "36 35 0:3 - cgroup2 c rw",
        " - cgroup2 c rw",
        "36 35 0:3 / /cg rw - cgroup2 c rw",
    ]
    (tmp_path / "self/mountinfo").write_text("\n".join(lines))
    assert find_cgroup2(tmp_path) == Path("/cg")


def test_a_tree_that_is_gone_has_no_paths(tmp_path: Path) -> None:
    """A mount that went, and a folder that goes while it is looked for."""
    clock = Clock()
    paths = CgroupPaths(tmp_path / "gone", clock)
    assert paths.path(1) is None
    (tmp_path / "gone").mkdir()
    clock.now += 31
    assert paths.path((tmp_path / "gone").stat().st_ino) == "/"


def test_an_unknown_id_is_looked_for_again_later(tmp_path: Path) -> None:
    clock = Clock()
    paths = CgroupPaths(tmp_path, clock, negative_ttl=30.0)
    assert paths.path(1) is None
    for seconds, walks in ((29.0, 1), (0.9, 1), (0.2, 2)):
        clock.now += seconds
        assert paths.path(1) is None
        assert paths.walks == walks


def test_a_command_that_was_cut_is_the_same_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel keeps 15 characters of a name; a shorter beginning of it is another's."""
    processes = Processes(Path("/proc"), Clock())
    monkeypatch.setattr(processes, "_ask", lambda _: "kube-controller-manager")
    assert processes.name(7, "kube-controller") == "kube-controller-manager"
    assert processes.name(7, "kube") == "kube"
    assert processes.name(7, "kube-controlleR") == "kube-controlleR"
