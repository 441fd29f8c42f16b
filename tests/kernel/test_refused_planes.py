# SPDX-License-Identifier: Apache-2.0
"""One program is refused: the agent goes on with the planes that loaded, and says which is down and why."""

from __future__ import annotations

import errno
import re
import shutil
from pathlib import Path

import pytest

from tests.kernel import agents
from tests.kernel.agents import Agent, both, nothing_left, pins, weir
from tests.kernel.peers.netns import PREFIX, Netns
from tests.kernel.peers.tcp import tcp_pair
from tests.kernel.peers.udp import udp_pair
from tests.kernel.seccomp import under

TCP, UDP = "weir_tcp_sent_bytes_total", "weir_udp_sent_bytes_total"
#: What no verifier lets pass, at the start of a program.
BAD = 'u64 spoiled = 0; asm volatile("%0 = *(u64 *)(%0 + 0)" : "+r"(spoiled));'
RAW_TRACEPOINT_OPEN = 17


def spoiled(folder: Path, *programs: str) -> dict[str, str]:
    """A copy of Weir in which the verifier refuses these programs; the environment that runs it."""
    shutil.copytree(agents.ROOT / "agent", folder / "agent", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(agents.ROOT / "bpf", folder / "bpf")
    for name in programs:
        start = re.compile(rf"^int {name}\([^)]*\)\n{{", re.MULTILINE)
        files = [p for p in (folder / "bpf").glob("*.h") if start.search(p.read_text())]
        assert files, name
        for path in files:
            path.write_text(start.sub(lambda found: f"{found[0]}\n{BAD}", path.read_text()))
    return {"PYTHONPATH": str(folder / "agent")}


def line(log: list[str], message: str, **fields: str) -> str:
    """The one log line of that message with these fields."""
    wanted = [f'msg="{message}"', *(f"{k}={v}" for k, v in fields.items())]
    found = [text for text in log if all(w in text for w in wanted)]
    assert len(found) == 1, log
    return found[0]


def planes(agent: Agent) -> dict[str, int]:
    page = agent.page()
    names = page.label("weir_agent_plane_up", "plane")
    return {name: page.sum("weir_agent_plane_up", plane=name) for name in names}


def counts_udp(agent: Agent, netns: Netns) -> None:
    with udp_pair(netns, netns) as pair:
        pair.run("send", 23, 100)
        (port,) = pair.ports
        page = agent.page_when(lambda p: both(p, UDP, port) == (2300, 2300))
        assert both(page, UDP, port) == (2300, 2300)


def counts_tcp(agent: Agent, netns: Netns) -> None:
    with tcp_pair(netns, netns) as pair:
        pair.run("send", 1009)
        page = agent.page_when(lambda p: both(p, TCP, pair.port) == (1009, 1009))
        assert both(page, TCP, pair.port) == (1009, 1009)


def pinned(instance: str) -> set[str]:
    return {p.name.split("-")[0] for p in pins(instance).glob("*/links/*")}


def test_udp_is_refused_by_the_verifier(instance: str, netns: Netns, tmp_path: Path) -> None:
    """One of its two programs: half a count would be a wrong one, so the plane counts nothing."""
    env = spoiled(tmp_path, "udp_ingress")
    with Agent(instance, (netns,), env=env).ready() as agent:
        up = planes(agent)
        assert (up["udp"], up["tcp"], up["retire"]) == (0, 1, 1)
        assert agent.get("/readyz")[0] == agent.get("/healthz")[0] == 200
        counts_tcp(agent, netns)
        with udp_pair(netns, netns) as pair:
            pair.run("send", 3, 100)
            assert both(agent.fresh(), UDP, pair.ports[0]) == (0, 0)
        assert {"udp_ingress", "udp_egress"} & pinned(instance) == set()
    down = line(agent.log, "a plane is down", plane="udp")
    assert "udp_ingress (cgroup ingress): the verifier refuses it" in down
    refused = line(agent.log, "a program was refused", program="udp_ingress")
    assert "verifier=" in refused
    assert "invalid mem access" in refused


def test_tcp_is_refused_by_the_verifier(instance: str, netns: Netns, tmp_path: Path) -> None:
    env = spoiled(tmp_path, "tcp_destroy", "find_listeners")
    with Agent(instance, (netns,), env=env).ready() as agent:
        up = planes(agent)
        assert (up["tcp"], up["udp"]) == (0, 1)
        assert agent.get("/readyz")[0] == 200
        counts_udp(agent, netns)
        assert not {n for n in pinned(instance) if n.startswith("tcp_")}
        assert agent.json("/api/v1/connections") is not None
    assert "the verifier refuses it" in line(agent.log, "a plane is down", plane="tcp")
    assert "find_listeners" in line(agent.log, "a plane is down", plane="discovery")
    line(agent.log, "a program was refused", program="tcp_destroy")


def test_slots_are_kept_where_the_kernel_folds_none(instance: str, netns: Netns, tmp_path: Path) -> None:
    with Agent(instance, (netns,), "--idle", "1", env=spoiled(tmp_path, "slot_fold")).ready() as agent:
        assert planes(agent)["retire"] == 0
        counts_tcp(agent, netns)
        agent.fresh()
        assert agent.page().sum("weir_agent_errors_total") == 0


def test_nothing_loads(tmp_path: Path) -> None:
    """Program and verifier's last lines, exit code 4, and nothing left."""
    env = spoiled(tmp_path, "tcp_state", "udp_egress")
    name = f"{PREFIX}nothing"
    done = weir("load", "--instance", name, env=env)
    assert (done.returncode, done.stdout) == (4, "")
    lines = done.stderr.splitlines()
    assert lines[0] == "verifier, last lines of tcp_state:"
    assert any("invalid mem access" in text for text in lines[1:-1])
    assert lines[-1].startswith("weir: no plane could be loaded: tcp_state (")
    assert "the verifier refuses it" in lines[-1]
    assert len(lines) <= 22
    nothing_left(name)


def test_check_tells_what_the_verifier_said(tmp_path: Path) -> None:
    done = weir("check", "--load", env=spoiled(tmp_path, "udp_egress"))
    assert done.returncode == 0, done
    assert "invalid mem access" in done.stdout
    assert re.search(r"load: plane udp +refused +udp_egress \(cgroup egress\): the verifier", done.stdout)
    done = weir("check", "--load", env=spoiled(tmp_path / "all", "tcp_state", "udp_egress"))
    assert done.returncode == 1
    assert done.stdout.splitlines()[-1] == "Weir cannot run here: load"
    assert re.search(r"load: tcp_destroy +found", done.stdout)


def test_a_filter_refuses_attaching(instance: str, netns: Netns, monkeypatch: pytest.MonkeyPatch) -> None:
    """seccomp lets all programs load, and refuses to attach those of TCP."""
    plain = agents.command
    filtered = under(errno.EPERM, "bpf", RAW_TRACEPOINT_OPEN)
    monkeypatch.setattr(agents, "command", lambda *arguments: [*filtered, *plain(*arguments)])
    with Agent(instance, (netns,)).ready() as agent:
        assert (planes(agent)["tcp"], planes(agent)["udp"]) == (0, 1)
        counts_udp(agent, netns)
    assert "seccomp filter answers bpf(2) with EPERM" in line(agent.log, "a plane is down", plane="tcp")
