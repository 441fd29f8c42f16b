# SPDX-License-Identifier: Apache-2.0
"""The image with a real Docker engine, as the README says to run it."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.image.engine import ROOT, TAG, Docker
from tests.kernel.agents import Page, program_ids
from tests.kernel.test_privileges import capabilities
from tests.unit.test_views_report import data_of

#: The one-off session of the README, and what an agent that outlives its container has besides.
ONE_OFF = ("--rm", "--privileged", "--pid=host", "--net=host")
KEPT = ("-v", "/sys/fs/bpf:/sys/fs/bpf")
PORT, TIMES, SIZE = 7001, 23, 1009
SENT, RECEIVED = "weir_tcp_sent_bytes_total", "weir_tcp_received_bytes_total"
SERVER = f"""
import socket
with socket.create_server(("", {PORT})) as listener:
    while True:
        with listener.accept()[0] as link:
            while link.recv(65536): pass
            link.sendall(b"y" * {SIZE})
"""
CLIENT = f"""
import socket, sys
for _ in range(int(sys.argv[2])):
    with socket.create_connection((sys.argv[1], {PORT})) as link:
        link.sendall(b"x" * {SIZE})
        link.shutdown(socket.SHUT_WR)
        while link.recv(65536): pass
"""


def until(done: Callable[[], bool], seconds: float = 30) -> bool:
    began = time.monotonic()
    while not (found := done()) and time.monotonic() - began < seconds:
        time.sleep(0.1)
    return found


@pytest.fixture
def kept(docker: Docker, tmp_path: Path) -> Iterator[tuple[str, ...]]:
    """Volumes of an agent that outlives its container. Nothing is left in the kernel after the test."""
    before = program_ids()
    volumes = (*KEPT, "-v", f"{tmp_path / 'run'}:/run/weir", "-v", f"{docker.socket}:/var/run/docker.sock")
    yield volumes
    docker.run("run", *ONE_OFF, *volumes, TAG, "unload")
    assert until(lambda: not program_ids() - before), program_ids() - before


@contextmanager
def containers(docker: Docker) -> Iterator[Callable[[int], None]]:
    """A server and a client, named by their user; a call makes so many connections between them."""
    python = ("--entrypoint", "python3", TAG, "-c")
    with ExitStack() as stack:
        for name in ("weirt-server", "weirt-client"):
            stack.callback(docker.run, "rm", "-f", name, code=None)
        docker.run("run", "-d", "--name", "weirt-server", *python, SERVER)
        docker.run("run", "-d", "--name", "weirt-client", *python, "import time; time.sleep(1e6)")
        address = docker.run(
            "inspect", "-f", "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}", "weirt-server"
        ).stdout.strip()
        yield lambda times: _nothing(
            docker.run("exec", "weirt-client", "python3", "-c", CLIENT, address, str(times))
        )


def _nothing(_: object) -> None:
    """Of a command's result."""


@contextmanager
def agent(
    docker: Docker, *options: str, privileges: tuple[str, ...] = ONE_OFF[1:], name: str = "weirt-agent"
) -> Iterator[str]:
    """A detached agent of the tests' containers only, ready."""
    own = ("-e", f"WEIR_CGROUP={docker.cgroup}", "-e", "WEIR_INTERVAL=0.2", "-e", "WEIR_NAT=off")
    try:
        docker.run(
            "run",
            "-d",
            "--name",
            name,
            "--cgroup-parent",
            f"{docker.cgroup}-agent",
            *privileges,
            *own,
            *options,
        )
        ready = until(lambda: page(docker, "/readyz") == "ok\n" or not running(docker, name))
        assert ready, docker.run("logs", name, code=None)
        assert running(docker, name), docker.run("logs", name, code=None)
        yield name
    finally:
        docker.run("rm", "-f", name, code=None)


def running(docker: Docker, name: str) -> bool:
    return docker.run("inspect", "-f", "{{.State.Running}}", name, code=None).stdout.strip() == "true"


def page(docker: Docker, path: str = "/metrics") -> str:
    """As seen from the host of the engine."""
    assert docker.host is not None
    try:
        return docker.host.run("curl", "-s", f"http://127.0.0.1:10435{path}")
    except RuntimeError:
        return ""


def metrics(docker: Docker, wanted: Callable[[Page], bool]) -> Page:
    found = Page({}, {})

    def there() -> bool:
        nonlocal found
        found = Page.of(page(docker))
        return wanted(found)

    until(there, 15)
    return found


def sent(shown: Page, reporter: str) -> int:
    ends = {"source_workload": "weirt-client", "destination_workload": "weirt-server"}
    return shown.sum(SENT, reporter=reporter, destination_port=PORT, **ends)


def test_check(docker: Docker) -> None:
    done = docker.run("run", *ONE_OFF, TAG, "check", "--json")
    found = json.loads(done.stdout)
    states = {row["feature"]: row["state"] for row in found["findings"]}
    assert states["BTF"] == states["TCP by storage"] == states["UDP by cgroup_skb"] == "found"
    assert "Weir can run here" in docker.run("run", *ONE_OFF, TAG, "check").stdout


def test_version_and_help_need_no_privileges(docker: Docker) -> None:
    assert docker.run("run", "--rm", TAG, "--version").stdout.startswith("weir, version ")
    assert "one-off" not in docker.run("run", "--rm", "--read-only", TAG, "top", "--help").stderr


def test_without_privileges_one_line_says_what_to_do(docker: Docker) -> None:
    done = docker.run("run", "--rm", TAG, "top", "--once", code=3)
    (line,) = done.stderr.splitlines()
    assert line.startswith("weir: ")
    assert "--privileged" in line


def all_loaded(before: set[int]) -> None:
    """Wait until there are programs, and no more have come for three seconds."""
    known, since = 0, time.monotonic()

    def still() -> bool:
        nonlocal known, since
        if (now := len(program_ids() - before)) != known:
            known, since = now, time.monotonic()
        return known > 5 and time.monotonic() - since > 3

    assert until(still)


@contextmanager
def session(docker: Docker, *command: str) -> Iterator[Callable[[], str]]:
    """A one-off container of Weir's; a call waits for its end and gives what it printed. Nothing is left."""
    before = program_ids()
    scope = ("-e", f"WEIR_CGROUP={docker.cgroup}", "-v", f"{docker.socket}:/var/run/docker.sock:ro")
    own = ("-d", "--name", "weirt-session", "--cgroup-parent", f"{docker.cgroup}-agent")
    docker.run("run", *own, *ONE_OFF[1:], *scope, TAG, *command)

    def printed() -> str:
        docker.run("wait", "weirt-session")
        return docker.run("logs", "weirt-session").stdout

    try:
        yield printed
    finally:
        docker.run("rm", "-f", "weirt-session", code=None)
    assert until(lambda: not program_ids() - before)


def test_top_alone(docker: Docker) -> None:
    """It counts what goes on meanwhile, by name."""
    before = program_ids()
    with (
        containers(docker) as talk,
        session(docker, "top", "--once", "--json", "--interval", "10") as printed,
    ):
        all_loaded(before)
        talk(TIMES)
        rows: list[dict[str, Any]] = json.loads(printed())["edges"]
    assert {row["workload"] for row in rows} == {"weirt-client", "weirt-server"}, rows
    assert [row["sent_bytes"] for row in rows] == [TIMES * SIZE] * 2, rows


def test_stat_alone(docker: Docker) -> None:
    """Each connection is one turn of a protocol that is not known: as many requests, at both ends."""
    before = program_ids()
    with containers(docker) as talk, session(docker, "stat", "--json", "--interval", "10") as printed:
        all_loaded(before)
        talk(TIMES)
        rows = json.loads(printed())["rows"]
    found = {(row["direction"], row["name"], row["protocol"], row["requests"]) for row in rows}
    assert found == {("in", "weirt-server", "tcp", TIMES), ("out", "weirt-client", "tcp", TIMES)}


def test_a_report(docker: Docker) -> None:
    """By standard output, as docs/deploy.md has it: what was sent meanwhile, to the byte."""
    options = ("--duration", "6", "--output", "-")
    with containers(docker) as talk, session(docker, "report", *options) as printed:
        until(lambda: docker.run("logs", "weirt-session").stderr.startswith("watching for 6 s"))
        time.sleep(1)
        talk(TIMES)
        data = data_of(printed())
    (link,) = data["links"]
    ends = [data["nodes"][link[end]]["name"] for end in ("source", "destination")]
    assert ends == ["weirt-client", "weirt-server"]
    assert (link["sent"], link["received"], link["opened"]) == (TIMES * SIZE, TIMES * SIZE, TIMES)


def test_an_agent_that_is_killed_and_comes_again(docker: Docker, kept: tuple[str, ...]) -> None:
    """Real containers by their names, to the byte, while there is an agent and while there is none."""
    with containers(docker) as talk:
        with agent(docker, *kept, TAG) as name:
            talk(TIMES)
            shown = metrics(docker, lambda p: sent(p, "source") == sent(p, "destination") == TIMES * SIZE)
            assert (sent(shown, "source"), sent(shown, "destination")) == (TIMES * SIZE,) * 2
            pid = docker.pid(name)
            for kind, found in capabilities(pid):
                assert found <= {"CAP_BPF", "CAP_SYS_ADMIN"}, kind
            docker.run("kill", name)
            assert until(lambda: not running(docker, name))
        talk(TIMES)
        with agent(docker, *kept, TAG, name="weirt-next"):
            shown = metrics(docker, lambda p: sent(p, "destination") == 2 * TIMES * SIZE)
            assert (sent(shown, "source"), sent(shown, "destination")) == (2 * TIMES * SIZE,) * 2
            talk(TIMES)
            shown = metrics(docker, lambda p: sent(p, "destination") == 3 * TIMES * SIZE)
            assert (sent(shown, "source"), sent(shown, "destination")) == (3 * TIMES * SIZE,) * 2
            answers = shown.sum(
                RECEIVED, reporter="source", source_workload="weirt-client", destination_port=PORT
            )
            assert answers == 3 * TIMES * SIZE


def test_a_stop_is_orderly(docker: Docker, kept: tuple[str, ...]) -> None:
    """SIGTERM reaches the agent (it is the container's first process), which ends at once with 0."""
    with agent(docker, *kept, TAG) as name:
        began = time.monotonic()
        docker.run("stop", name)
        assert time.monotonic() - began < 8
        assert docker.run("inspect", "-f", "{{.State.ExitCode}}", name).stdout.strip() == "0"


def test_a_read_only_root(docker: Docker, kept: tuple[str, ...]) -> None:
    """It writes nothing but its volumes, and what it keeps in memory."""
    read_only = (*ONE_OFF[1:], "--read-only", "--tmpfs", "/tmp", "-e", "WEIR_CACHE_DIR=")
    with containers(docker) as talk, agent(docker, *kept, TAG, privileges=read_only) as name:
        talk(TIMES)
        shown = metrics(docker, lambda p: sent(p, "destination") == TIMES * SIZE)
        assert sent(shown, "destination") == TIMES * SIZE
        made = {"C /run", "A /run/weir", "A /run/docker.sock"}  # where the engine mounts the volumes
        assert set(docker.run("diff", name).stdout.splitlines()) <= made


def test_the_least_of_privileges(docker: Docker, kept: tuple[str, ...]) -> None:
    """A loader with the heavy ones, which ends, and an agent with the least. This Docker knows no CAP_BPF."""
    if "BPF" in docker.run("run", "--help").stdout:
        pytest.fail("this Docker knows CAP_BPF: use it here")
    own = ("--rm", "--pid=host", "--net=host", "--read-only", "--tmpfs", "/tmp", "--cap-drop=ALL")
    scope = ("-e", f"WEIR_CGROUP={docker.cgroup}", "-e", "WEIR_NAT=off", "-e", "WEIR_CACHE_DIR=")
    heavy = ("--cap-add=SYS_ADMIN", "--cap-add=SYS_PTRACE", "--security-opt", "apparmor=unconfined")
    done = docker.run("run", *own, *heavy, *scope, *kept, TAG, "load")
    assert done.stdout.startswith("loaded: TCP by "), done
    assert "down:" not in done.stdout
    profile = ROOT / "daemonset/seccomp/agent.json"
    least = (
        *own[1:],
        "--cap-add=SYS_ADMIN",
        "--security-opt=no-new-privileges",
        "--security-opt",
        f"seccomp={profile}",
        "-v",
        "/sys/fs/cgroup:/host/cgroup:ro",
    )
    with containers(docker) as talk, agent(docker, *scope, *kept, TAG, privileges=least) as name:
        said = docker.run("logs", name).stderr
        assert "using the pinned kernel side" in said, said
        talk(TIMES)
        shown = metrics(docker, lambda p: sent(p, "destination") == TIMES * SIZE)
        assert (sent(shown, "source"), sent(shown, "destination")) == (TIMES * SIZE,) * 2
        status = Path("/proc", str(docker.pid(name)), "status").read_text()
        assert "Seccomp:\t2" in status
        assert all(found <= {"CAP_SYS_ADMIN"} for _, found in capabilities(docker.pid(name)))


def test_the_image_is_what_it_says(docker: Docker) -> None:
    """No package lists, no compiler, no pip, nothing of the network it was built in; its size."""
    (facts,) = json.loads(docker.run("image", "inspect", TAG).stdout)
    assert facts["Size"] < 580e6
    assert facts["Config"]["Entrypoint"] == ["/opt/weir/bin/weir"]
    script = (
        "ls /var/lib/apt/lists | wc -l; command -v gcc pip; find /etc /usr -name '*.pem' -o -name pip.conf"
    )
    done = docker.run("run", "--rm", "--entrypoint", "sh", TAG, "-c", script)
    assert done.stdout.split() == ["0"]


def test_what_is_installed_is_what_is_tested(docker: Docker) -> None:
    """Versions in the image are those of scripts/constraints.txt."""
    script = "import importlib.metadata as m; print(*[f'{d.name}=={d.version}' for d in m.distributions()])"
    done = docker.run("run", "--rm", "--entrypoint", "/opt/weir/bin/python", TAG, "-I", "-c", script)
    pinned = (ROOT / "scripts/constraints.txt").read_text().lower().replace("_", "-").splitlines()
    there = {line.split(";")[0].strip() for line in pinned}
    ours = set(done.stdout.lower().replace("_", "-").split()) & there
    names = {line.split("==")[0] for line in (ROOT / "daemonset/requirements.txt").read_text().splitlines()
             if "==" in line}  # fmt: skip
    assert names == {line.split("==")[0] for line in ours}


def test_signals_do_not_kill_the_counting(docker: Docker, kept: tuple[str, ...]) -> None:
    """A container that the kernel kills (out of memory) leaves its pins: the next one goes on."""
    with agent(docker, *kept, TAG) as name:
        os.kill(docker.pid(name), signal.SIGKILL)
        assert until(lambda: not running(docker, name))
    with agent(docker, *kept, TAG) as name:
        assert "using the pinned kernel side" in docker.run("logs", name).stderr
