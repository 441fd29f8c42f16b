# SPDX-License-Identifier: Apache-2.0
"""Requests within TLS as a user has them: an agent that finds libraries, is killed, comes again."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kernel.agents import Agent, Page, program_ids, until, weir
from tests.kernel.peers.netns import Netns
from tests.kernel.test_http_servers import needed, running
from tests.kernel.test_tls import _SERVER, folder, own_libraries
from weir.kernel import mounts, uprobes

pytestmark = pytest.mark.skipif(bool(uprobes.refusal()), reason=uprobes.refusal() or "-")
__all__ = ["folder"]
PORT, FILES = 8443, "weir_agent_tls_files"
_ON = {"WEIR_REQUESTS": "1", "WEIR_TLS": "1"}


@contextlib.contextmanager
def serving(place: Netns, folder: Path) -> Iterator[int]:
    command = (*own_libraries(folder), sys.executable, "-c", _SERVER, str(folder), str(PORT))
    with running(place, PORT, *command) as server:
        yield server.pid


def visit(place: Netns, folder: Path, times: int) -> None:
    for _ in range(times):
        place.run(*own_libraries(folder), "curl", "-sko", "/dev/null", f"https://127.0.0.1:{PORT}/")


def counted(page: Page) -> tuple[float, ...]:
    """Of both ends: requests with status 404, and all others."""
    pair = {"destination_port": PORT}
    return tuple(
        page.sum("weir_requests_total", reporter=end, **pair, **more)
        for end in ("source", "destination")
        for more in ({"status": "404", "protocol": "http"}, {"protocol": "tcp"})
    )


def pinned(instance: str) -> list[str]:
    return [path.name for path in mounts.ensure("bpf").glob(f"weir/{instance}/v*/uprobes/*")]


def test_from_start_to_unload(instance: str, netns: Netns, folder: Path) -> None:
    needed("curl")
    before = program_ids()
    with serving(netns, folder):
        with Agent(instance, (netns,), env=_ON).ready() as agent:
            agent.page_when(lambda p: p.sum(FILES, library="openssl") == 1)
            visit(netns, folder, 7)
            page = agent.page_when(lambda p: counted(p)[0] == 7)
            assert counted(page) == (7, 0, 7, 0)
            assert page.sum("weir_agent_plane_up", plane="tls") == 1
            assert page.sum("weir_agent_tls_files_refused_total") == 0
            agent.process.send_signal(signal.SIGKILL)
            agent.process.wait()
        probes = pinned(instance)
        if os.uname().release.startswith("5.10"):
            pytest.skip("probes cannot be pinned before Linux 5.15: they go with the agent")
        assert probes
        visit(netns, folder, 5)  # nobody is there
        with Agent(instance, (netns,), env=_ON).ready() as agent:
            agent.page_when(lambda p: p.sum(FILES, library="openssl") == 1)
            visit(netns, folder, 3)
            page = agent.page_when(lambda p: counted(p)[0] == 15)
            assert counted(page) == (15, 0, 15, 0)
            assert sorted(pinned(instance)) == sorted(probes)
    assert pinned(instance)
    assert weir("unload", "--instance", instance).returncode == 0
    assert not pinned(instance)
    until(lambda: program_ids() <= before)
    assert program_ids() <= before


def test_probes_go_with_the_last_process(instance: str, netns: Netns, folder: Path) -> None:
    with Agent(instance, (netns,), env=_ON).ready() as agent:
        with serving(netns, folder):
            agent.page_when(lambda p: p.sum(FILES) == 1)
            assert len(pinned(instance)) > 8
        agent.page_when(lambda p: p.sum(FILES) == 0)
        assert not pinned(instance)


def test_left_out(instance: str, netns: Netns, folder: Path) -> None:
    """Turns are counted as without probes, a handshake's too."""
    with serving(netns, folder), Agent(instance, (netns,), env=_ON | {"WEIR_TLS": "0"}).ready() as agent:
        visit(netns, folder, 3)
        page = agent.fresh()
        assert page.sum(FILES) == 0
        assert page.sum("weir_agent_plane_up", plane="tls") == 0
        assert counted(page)[0] == counted(page)[2] == 0
        assert counted(page)[1] >= 3
        assert not pinned(instance)


def test_without_the_hosts_processes(instance: str, netns: Netns) -> None:
    """The plane is down, and says how to mend it; all else works."""
    alone = ("unshare", "--pid", "--fork", "--mount-proc", "--kill-child")
    with Agent(instance, (netns,), env=_ON, wrap=alone).ready() as agent:
        page = agent.page()
        assert page.sum("weir_agent_plane_up", plane="tls") == 0
        assert page.sum("weir_agent_plane_up", plane="http") == 1
        agent.process.kill()
        until(lambda: not weir("unload", "--instance", instance).returncode)
