# SPDX-License-Identifier: Apache-2.0
"""What a running agent may still do, and what each capability is for: without it, just that is missing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.kernel.agents import Agent, Page, both, own_instance, weir
from tests.kernel.peers.netns import Netns
from tests.kernel.peers.tcp import tcp_pair
from weir.kernel import uprobes
from weir.kernel.sandbox import CAPABILITIES

_BYTES = "weir_tcp_sent_bytes_total"
#: Files that an agent has open: its own, and nothing of the host's.
_OPEN = (
    "anon_inode:bpf-", "anon_inode:bpf_", "anon_inode:[eventpoll]", "anon_inode:[eventfd]", "socket:[",
    "pipe:[", "/dev/null", "/run/weir/", "/tmp/",
)  # fmt: skip


def without(*names: str) -> tuple[str, ...]:
    """A command in front: all that Weir uses but these, as a container runtime leaves a root process."""
    there = [f"+{name.removeprefix('CAP_').lower()}" for name in CAPABILITIES if name not in names]
    there.remove("+sys_resource") if "+sys_resource" in there else None
    return ("setpriv", "--inh-caps=-all", "--bounding-set=" + ",".join(["-all", *there]))


def only(*names: str) -> tuple[str, ...]:
    return without(*(set(CAPABILITIES) - set(names)))


def capabilities(pid: int) -> Iterator[tuple[str, set[str]]]:
    """Of each thread: a set's name in /proc/PID/status, and the names in it."""
    for task in Path("/proc", str(pid), "task").iterdir():
        for line in (task / "status").read_text().splitlines():
            name, _, value = line.partition(":\t")
            if name in ("CapPrm", "CapEff", "CapBnd", "CapInh", "CapAmb"):
                bits = int(value, 16)
                known = {c for c, bit in CAPABILITIES.items() if bits >> bit & 1}
                assert bits == sum(1 << CAPABILITIES[c] for c in known), f"{name} {value}"
                yield name, known


def opened(pid: int) -> Iterator[str]:
    """What the process has open, but for what it opens and closes meanwhile."""
    for fd in Path("/proc", str(pid), "fd").iterdir():
        with suppress(FileNotFoundError):
            yield str(fd.readlink())


def one_connection(place: Netns) -> None:
    with tcp_pair(place, place) as pair:
        link = pair.open()
        link.move(1009)
        link.close()


def total(page: Page) -> tuple[int, int]:
    return page.sum(_BYTES, reporter="source"), page.sum(_BYTES, reporter="destination")


KINDS = {
    "plain": ({"WEIR_NAT": "off"}, {"CAP_BPF"}),
    "requests": ({"WEIR_NAT": "off", "WEIR_REQUESTS": "1"}, {"CAP_BPF"}),
    "tls": (
        {"WEIR_NAT": "off", "WEIR_REQUESTS": "1", "WEIR_TLS": "1"},
        {"CAP_BPF", "CAP_SYS_ADMIN", "CAP_SYS_PTRACE"},
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_what_an_agent_may_do_once_it_runs(instance: str, netns: Netns, kind: str) -> None:
    if kind == "tls" and uprobes.refusal():
        pytest.skip(uprobes.refusal())
    env, kept = KINDS[kind]
    with Agent(instance, (netns,), env=env).ready() as agent:
        for name, found in capabilities(agent.pid):
            assert found == (kept if name in ("CapPrm", "CapEff", "CapBnd") else set()), name
        assert "NoNewPrivs:\t1" in Path("/proc", str(agent.pid), "status").read_text()
        assert not list(Path("/proc", str(agent.pid), "task", str(agent.pid), "children").read_text().split())
        assert not [path for path in opened(agent.pid) if not path.startswith(_OPEN)]
        own, ours = (Path(f"/proc/{pid}/mountinfo").read_text() for pid in (agent.pid, "self"))
        assert own == ours  # it lives in the mounts that it was given
        one_connection(netns)
        assert total(agent.page_when(lambda page: total(page) == (1009, 1009))) == (1009, 1009)


def test_threads_that_were_there_before(instance: str, netns: Netns) -> None:
    """Whoever has numpy make threads of its own is told; it counts all the same."""
    env = {"WEIR_NAT": "off", "OPENBLAS_NUM_THREADS": "2"}
    with Agent(instance, (netns,), env=env).ready() as agent:
        (line,) = [line for line in agent.log if "level=warning" in line]
        assert "privileges that are not needed any more are kept: thread" in line
        one_connection(netns)
        assert total(agent.page_when(lambda page: total(page) == (1009, 1009))) == (1009, 1009)


@contextmanager
def loaded(instance: str, place: Netns, *wrap: str, **env: str) -> Iterator[str]:
    """``weir load`` with less; what it said."""
    done = weir("load", "--instance", instance, "--netns", place.name, wrap=wrap, env=env)
    yield f"{done.returncode} {done.stdout}{done.stderr}"


@pytest.fixture(scope="module")
def mounted() -> Iterator[None]:
    """Another Weir on this host, so that the file systems that Weir needs are there."""
    with own_instance() as name:
        done = weir("load", "--instance", name, "--port", "1", "--no-udp", env={"WEIR_NAT": "off"})
        assert done.returncode == 0, done.stderr
        yield


#: Capabilities that the loader does without (SYS_ADMIN stands for several) → exit code, what is down.
LOADER = {
    "all": ((), 0, ()),
    "no SYS_ADMIN": (("CAP_SYS_ADMIN",), 0, ()),
    "no BPF": (("CAP_SYS_ADMIN", "CAP_BPF"), 3, ("CAP_BPF or CAP_SYS_ADMIN is missing",)),
    "no PERFMON": (("CAP_SYS_ADMIN", "CAP_PERFMON"), 3, ("CAP_PERFMON or CAP_SYS_ADMIN is missing",)),
    "no NET_ADMIN": (
        ("CAP_SYS_ADMIN", "CAP_NET_ADMIN"), 0, ("down: udp: ", "down: requests: ", "CAP_NET_ADMIN"),
    ),
    "SYS_ADMIN for BPF, PERFMON, NET_ADMIN": (("CAP_BPF", "CAP_PERFMON", "CAP_NET_ADMIN"), 0, ()),
    "no names": (("CAP_SYS_PTRACE", "CAP_DAC_READ_SEARCH"), 0, ()),
}  # fmt: skip


@pytest.mark.usefixtures("mounted")
@pytest.mark.parametrize("case", LOADER)
def test_what_the_loader_needs(instance: str, netns: Netns, case: str) -> None:
    """And an agent that takes over, with CAP_BPF alone, counts all the same.

    It compiles with no more either: without CAP_SYSLOG BCC does not find the kernel's symbols.
    """
    dropped, code, said = LOADER[case]
    with loaded(instance, netns, *without(*dropped), WEIR_NAT="off", WEIR_REQUESTS="1",
                WEIR_CACHE_DIR="") as answer:  # fmt: skip
        assert answer.startswith(str(code)), answer
        assert all(text in answer for text in said), answer
        assert ("down:" in answer) == any("down:" in text for text in said)
    if code:
        assert len(answer.splitlines()) == 1
        return
    env = {"WEIR_NAT": "off", "WEIR_REQUESTS": "1"}
    with Agent(instance, (netns,), env=env, wrap=only("CAP_BPF")).ready() as agent:
        assert any("using the pinned kernel side" in line for line in agent.log)
        assert all(found <= {"CAP_BPF"} for _, found in capabilities(agent.pid))
        one_connection(netns)
        page = agent.page_when(lambda page: total(page) == (1009, 1009))
        assert total(page) == (1009, 1009)
        assert sum(both(page, "weir_requests_total", 0)) == 0


@pytest.mark.usefixtures("mounted")
def test_an_agent_without_cap_bpf_is_told(instance: str, netns: Netns) -> None:
    with loaded(instance, netns, WEIR_NAT="off"):
        pass
    wrap = without("CAP_BPF", "CAP_SYS_ADMIN")
    done = weir("run", "--instance", instance, "--netns", netns.name, "--listen", "127.0.0.1:0", wrap=wrap,
                env={"WEIR_NAT": "off"})  # fmt: skip
    (line,) = done.stderr.splitlines()
    assert (done.returncode, done.stdout) == (3, "")
    assert "CAP_BPF or CAP_SYS_ADMIN is missing" in line
