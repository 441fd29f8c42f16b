# SPDX-License-Identifier: Apache-2.0
"""The image with Podman, whose runtime knows CAP_BPF and CAP_PERFMON: each capability taken away in turn."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from tests.image.engine import HERE, ROOT, TAG, Docker
from tests.image.test_docker import all_loaded, until
from tests.kernel.agents import Page, both, program_ids
from tests.kernel.peers.dialogue import CLIENT, SERVER, Dialogues
from tests.kernel.peers.http_text import answer, get
from tests.kernel.peers.netns import Netns, make_netns
from tests.kernel.peers.tcp import tcp_pair
from tests.kernel.test_privileges import capabilities
from tests.unit.test_views_report import data_of

#: What daemonset/overlays/least-privilege gives.
LOADER, AGENT = ("BPF", "PERFMON", "NET_ADMIN", "SYS_PTRACE"), ("BPF",)


@dataclass(frozen=True)
class Podman:
    """Podman with folders of its own, whose "host" is a network namespace."""

    folder: Path
    host: Netns

    def run(self, *arguments: str, code: int | None = 0) -> subprocess.CompletedProcess[str]:
        """A command; its exit code is checked, but for None."""
        base = [
            "nsenter", f"--net={self.host.path}", "--", "podman", "--root", str(self.folder / "root"),
            "--runroot", str(self.folder / "run"), "--cgroup-manager", "cgroupfs",
            "--storage-driver", "overlay", "--runtime", str(HERE / "runtime.py"),
        ]  # fmt: skip
        environment = {**os.environ, "PATH": f"/usr/sbin:/usr/bin:{os.environ['PATH']}"}
        done = subprocess.run(
            [*base, *arguments], text=True, capture_output=True, check=False, timeout=200, env=environment
        )
        assert code is None or done.returncode == code, f"podman {' '.join(arguments)}: {done}"
        return done

    def weir(
        self,
        capabilities: tuple[str, ...],
        *arguments: str,
        options: tuple[str, ...] = (),
        code: int | None = 0,
    ) -> subprocess.CompletedProcess[str]:
        """``weir`` in a container with these capabilities and no others; it compiles for itself."""
        given = [f"--cap-add={','.join(capabilities)}"] if capabilities else []
        if not any("seccomp=" in part for part in options):
            # Podman's own profile lets nobody call bpf(2) without CAP_SYS_ADMIN
            given += ["--security-opt", "seccomp=unconfined"]
        return self.run(
            "run", *(options or ("--rm",)), "--pid=host", "--net=host", "--read-only", "--tmpfs", "/tmp",
            "--security-opt", "no-new-privileges", "--cap-drop=ALL", *given,
            "-v", f"{self.folder / 'bpffs'}:/sys/fs/bpf", "-v", f"{self.folder / 'state'}:/run/weir",
            "-v", "/sys/fs/cgroup:/host/cgroup:ro", "-e", "WEIR_CACHE_DIR=", "-e", "WEIR_NAT=off",
            "-e", f"WEIR_NETNS={self.host.inode}", "-e", "WEIR_INTERVAL=0.2", TAG, *arguments, code=code,
        )  # fmt: skip


@pytest.fixture(scope="module")
def podman(docker: Docker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Podman]:
    if not shutil.which("podman", path="/usr/bin"):
        pytest.skip("podman is missing: scripts/setup --tests --image")
    folder = tmp_path_factory.mktemp("podman")
    for name in ("bpffs", "state"):
        (folder / name).mkdir()
    subprocess.run(["mount", "-t", "bpf", "bpf", folder / "bpffs"], check=True)
    with make_netns() as host:
        made = Podman(folder, host)
        try:
            docker.run("save", TAG, "-o", str(folder / "image.tar"))
            made.run("load", "-i", str(folder / "image.tar"))
            made.run("tag", f"localhost/{TAG}", TAG, code=None)
            (folder / "image.tar").unlink()
            yield made
        finally:
            made.run("rm", "-af", code=None)
            made.run("rmi", "-af", code=None)
            subprocess.run(["umount", folder / "bpffs"], check=True)
            subprocess.run(["umount", folder / "root/overlay"], check=False, capture_output=True)


@contextmanager
def loaded(podman: Podman, capabilities: tuple[str, ...], code: int = 0) -> Iterator[str]:
    before = program_ids()
    done = podman.weir(capabilities, "load", code=code)
    yield done.stdout + done.stderr
    podman.weir(LOADER, "unload")
    assert until(lambda: not program_ids() - before)


@contextmanager
def agent(podman: Podman, capabilities: tuple[str, ...]) -> Iterator[int]:
    """A detached agent with the seccomp profile; its process id."""
    profile = ROOT / "daemonset/seccomp/agent.json"
    options = ("-d", "--name", "weirt-agent", "--security-opt", f"seccomp={profile}")
    try:
        podman.weir(capabilities, "run", options=options)
        ready = until(lambda: "ok" in page(podman, "/readyz"))
        assert ready, podman.run("logs", "weirt-agent").stderr
        yield int(podman.run("inspect", "-f", "{{.State.Pid}}", "weirt-agent").stdout)
    finally:
        podman.run("rm", "-f", "weirt-agent", code=None)


def page(podman: Podman, path: str = "/metrics") -> str:
    try:
        return podman.host.run("curl", "-s", f"http://127.0.0.1:10435{path}")
    except RuntimeError:
        return ""


def test_a_loader_and_an_agent_with_the_least(podman: Podman) -> None:
    """All planes, without CAP_SYS_ADMIN anywhere; the agent has CAP_BPF, a seccomp profile, and counts."""
    with loaded(podman, LOADER) as said:
        assert said.startswith("loaded: TCP by ")
        assert "down:" not in said
        with agent(podman, AGENT) as pid, tcp_pair(podman.host, podman.host) as pair:
            assert all(found <= {"CAP_BPF"} for _, found in capabilities(pid))
            status = Path("/proc", str(pid), "status").read_text()
            assert "Seccomp:\t2" in status
            assert "NoNewPrivs:\t1" in status
            link = pair.open()
            link.move(1009)
            link.close()
            # not the scrapes, which are counted as well
            sent = partial(both, name="weir_tcp_sent_bytes_total", port=pair.port)
            assert until(lambda: sent(Page.of(page(podman))) == (1009, 1009))


@pytest.mark.parametrize(
    ("missing", "code", "said"),
    [
        ("BPF", 3, ("CAP_BPF or CAP_SYS_ADMIN is missing",)),
        ("PERFMON", 3, ("CAP_PERFMON or CAP_SYS_ADMIN is missing",)),
        ("NET_ADMIN", 0, ("down: udp:", "down: requests:", "CAP_NET_ADMIN or CAP_SYS_ADMIN is missing")),
        ("SYS_PTRACE", 0, ()),
    ],
)
def test_what_each_capability_of_the_loader_is_for(
    podman: Podman, missing: str, code: int, said: tuple[str, ...]
) -> None:
    """As the table in docs/deploy.md says."""
    with loaded(podman, tuple(name for name in LOADER if name != missing), code) as answer:
        assert all(text in answer for text in said), answer
        assert ("down:" in answer) == any("down:" in text for text in said)
        assert code == 0 or len(answer.splitlines()) == 1


def test_an_agent_without_cap_bpf(podman: Podman) -> None:
    with loaded(podman, LOADER):
        done = podman.weir((), "run", code=3)
        assert "CAP_BPF or CAP_SYS_ADMIN is missing" in done.stderr


def test_a_seccomp_profile_that_does_not_know_cap_bpf(podman: Podman) -> None:
    """As Podman's own and cri-o's: one line says what it is, and that no capability is missing."""
    profile = podman.folder / "old.json"
    text = json.loads((ROOT / "daemonset/seccomp/agent.json").read_text())
    text["syscalls"][0]["names"].remove("bpf")
    profile.write_text(json.dumps(text))
    options = ("--rm", "--security-opt", f"seccomp={profile}")
    done = podman.weir(LOADER, "load", options=options, code=3)
    (line,) = done.stderr.splitlines()
    assert "a seccomp filter answers bpf(2) with EPERM, though the capabilities are there" in line


def test_one_off(podman: Podman) -> None:
    """The README's line, with podman."""
    done = podman.run("run", "--rm", "--privileged", "--pid=host", "--net=host", TAG, "check")
    assert "Weir can run here" in done.stdout


@pytest.mark.parametrize("what", ["top", "stat", "report"])
def test_one_off_sessions(podman: Podman, what: str) -> None:
    """Alone and privileged, with what goes on meanwhile in Podman's host namespace; nothing is left."""
    options = {"top": ("--once", "--json", "--interval", "10"), "stat": ("--json", "--interval", "10"),
               "report": ("--duration", "10", "--output", "-")}[what]  # fmt: skip
    before = program_ids()
    own = ("--rm", "--privileged", "--pid=host", "--net=host", "-e", f"WEIR_NETNS={podman.host.inode}")
    with ThreadPoolExecutor() as pool, Dialogues(podman.host) as talks:
        session = pool.submit(podman.run, "run", *own, TAG, what, *options)
        all_loaded(before)
        talks.listen(address="127.0.0.1", port=7080)
        for _ in range(13):
            talks.once(7080, [(CLIENT, get()), (SERVER, answer(200))], "127.0.0.1")
        printed = session.result().stdout
    if what == "top":
        rows = json.loads(printed)["edges"]
        assert [row["sent_bytes"] for row in rows if row["role"] == "source"] == [13 * len(get())]
    elif what == "stat":
        found = {(row["direction"], row["protocol"], row["requests"]) for row in json.loads(printed)["rows"]}
        assert found == {("in", "http", 13), ("out", "http", 13)}
    else:
        (link,) = data_of(printed)["links"]
        assert (link["sent"], link["requests"], link["failures"]) == (13 * len(get()), 13, 0)
    assert until(lambda: not program_ids() - before)
