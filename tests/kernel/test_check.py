# SPDX-License-Identifier: Apache-2.0
"""``weir check`` under real refusals: it names the cause, and tells it from a feature that is missing."""

from __future__ import annotations

import errno
import json
import platform
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.kernel import agents
from tests.kernel.agents import Agent, both, nothing_left, own_instance, pins, program_ids, weir
from tests.kernel.peers.netns import PREFIX, Netns
from tests.kernel.peers.udp import udp_pair
from tests.kernel.seccomp import under
from weir.kernel import mounts
from weir.kernel.attach import _KPROBE_TYPE
from weir.metrics import METRICS

NAME = f"{PREFIX}refused"
NOBODY = 65534


@pytest.fixture(autouse=True)
def _clean() -> Iterator[None]:
    """What a load that should have been refused left must not fail the next test too."""
    yield
    if pins(NAME).exists():
        weir("unload", "--instance", NAME)


def check(*more: str, wrap: tuple[str, ...] = (), user: int | None = None, code: int = 1) -> Any:
    """What ``weir check --json`` told."""
    done = weir("check", "--json", *more, wrap=wrap, user=user)
    assert (done.returncode, done.stderr) == (code, ""), done
    told = json.loads(done.stdout)
    assert told["ok"] == (code == 0)
    nothing_left(NAME)
    return told


def rows(told: Any) -> dict[str, dict[str, Any]]:
    found = {row["feature"]: row for row in told["findings"]}
    assert len(found) == len(told["findings"]), "a feature is told twice"
    return found


def cause(told: Any, *features: str) -> set[str]:
    """Causes of these features, each of which is refused."""
    chosen = [rows(told)[f] for f in features]
    assert {r["state"] for r in chosen} == {"refused"}, chosen
    return {r["cause"] for r in chosen}


def refused(*words: str, wrap: tuple[str, ...], code: int = 3) -> None:
    """``weir load`` says the same cause in its one line, and leaves nothing."""
    done = weir("load", "--instance", NAME, wrap=wrap)
    assert done.returncode == code, done
    (line,) = done.stderr.splitlines()
    assert not [w for w in ("weir: ", *words) if w not in line], line
    nothing_left(NAME)


def without(*names: str) -> tuple[str, ...]:
    """As a container runtime that drops these capabilities."""
    if shutil.which("setpriv") is None:
        pytest.skip("setpriv is not installed")
    return "setpriv", "--bounding-set", ",".join(f"-{n}" for n in names), "--inh-caps", "-all"


def test_what_root_of_a_host_sees() -> None:
    """The features of docs/kernels.md, each with a state; and what a bug report needs, nothing personal."""
    told = check(code=0)
    found = rows(told)
    assert found["user"]["state"] == found["bpf(2)"]["state"] == found["BTF"]["state"] == "found"
    assert any(found[f"TCP by {v}"]["detail"].endswith("(used)") for v in ("storage", "tracepoint", "kprobe"))
    assert (found["kprobes"]["state"] == "found") == _KPROBE_TYPE.exists() or platform.release() < "5.15"
    for row in found.values():
        assert row["state"] in ("found", "replaced", "missing", "refused", "unknown")
        assert row["detail"]
        assert row["state"] in ("found", "replaced", "unknown") or row["remedy"] or row["effect"], row
    assert (told["schema"], told["kernel"]["release"]) == (1, platform.release())
    assert told["verdict"] == "Weir can run here."
    assert told["capabilities"]["CAP_SYS_ADMIN"] == "effective"
    assert told["distribution"]["id"]
    text = json.dumps(told)
    assert not re.search(rf"\b({re.escape(socket.gethostname())}|\d+\.\d+\.\d+\.\d+)\b|/home/", text)


def test_effects_name_metrics_that_exist() -> None:
    names = {m.name for m in METRICS}
    told = check(wrap=under(errno.EPERM, "bpf"))
    said = set(re.findall(r"weir_\w*[a-z]\b", " ".join(r["effect"] for r in told["findings"])))
    assert said
    assert {n for n in said if n not in names and not any(m.startswith(f"{n}_") for m in names)} == set()


def test_not_root() -> None:
    """Nothing is called replaced or missing for want of rights alone."""
    told = check(user=NOBODY)
    features: tuple[str, ...] = (
        "user",
        "bpf(2)",
        "TCP",
        "TCP by storage",
        "UDP by cgroup_skb",
        "atomic hand-over of counters",
    )
    if rows(told)["TCP by storage"]["state"] == "missing":  # Linux 5.10
        features = tuple(f for f in features if f != "TCP by storage")
    assert cause(told, *features) == {"not-root"}
    root = rows(check(code=0))
    for name, row in rows(told).items():
        if row["state"] in ("replaced", "missing"):
            assert root[name]["state"] in ("replaced", "missing"), row
    assert "not root (uid 65534)" in rows(told)["bpf(2)"]["detail"]
    page = weir("check", user=NOBODY)
    assert page.returncode == 1
    assert page.stdout.splitlines()[-1].startswith("Weir cannot run here: user, bpf(2), ")


@pytest.mark.parametrize(
    ("dropped", "said", "features"),
    [
        (("bpf", "sys_admin"), "CAP_BPF", ("CAP_BPF", "bpf(2)", "TCP", "UDP by cgroup_skb")),
        (("perfmon", "sys_admin"), "CAP_PERFMON", ("CAP_PERFMON", "bpf(2)", "TCP")),
        (("net_admin", "sys_admin"), "CAP_NET_ADMIN", ("CAP_NET_ADMIN", "UDP by cgroup_skb")),
        (("sys_admin",), "CAP_SYS_ADMIN", ("CAP_SYS_ADMIN", "run-time statistics")),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_capability_is_dropped(dropped: tuple[str, ...], said: str, features: tuple[str, ...]) -> None:
    done = weir("check", "--json", wrap=without(*dropped))
    told = json.loads(done.stdout)
    assert cause(told, *features) == {"capability"}
    for feature in features:
        assert said in rows(told)[feature]["detail"], feature
        assert "--cap-add" in rows(told)[feature]["remedy"]
    assert told["capabilities"][said] == "dropped"
    assert "not in the bounding set" in rows(told)[said]["detail"]
    if said in ("CAP_BPF", "CAP_PERFMON"):
        assert done.returncode == 1
    assert "replaced" not in {
        r["state"] for f, r in rows(told).items() if f.startswith("TCP by") and "CAP_" in r["detail"]
    }


def test_what_a_load_says_without_a_capability() -> None:
    refused("CAP_BPF", "--cap-add BPF", wrap=without("bpf", "sys_admin"))
    if mounts.find("bpf"):
        refused("CAP_PERFMON", "--cap-add PERFMON", wrap=without("perfmon", "sys_admin"))


def test_small_capabilities_do_not_stop_it() -> None:
    told = check(wrap=without("sys_ptrace", "dac_read_search"), code=0)
    assert cause(told, "CAP_SYS_PTRACE", "CAP_DAC_READ_SEARCH") == {"capability"}


def test_user_namespace() -> None:
    wrap = ("unshare", "-U", "-r")
    if subprocess.run([*wrap, "true"], check=False, capture_output=True).returncode:
        pytest.skip("this kernel lets nobody make a user namespace")
    told = check(wrap=wrap)
    assert cause(told, "user", "bpf(2)", "TCP") == {"user-namespace"}
    assert told["private_namespaces"] == ["user"]
    refused("user namespace", "rootless", wrap=wrap)


@pytest.mark.parametrize("error", [errno.EPERM, errno.ENOSYS], ids=["EPERM", "ENOSYS"])
def test_seccomp_refuses_bpf(error: int) -> None:
    wrap = under(error, "bpf")
    told = check(wrap=wrap)
    assert cause(told, "bpf(2)", "seccomp", "TCP", "UDP by cgroup_skb") == {"seccomp"}
    assert f"answers bpf(2) with {errno.errorcode[error]}" in rows(told)["bpf(2)"]["detail"]
    assert "seccomp=unconfined" in rows(told)["bpf(2)"]["remedy"]
    assert (told["seccomp"], told["capabilities"]["CAP_BPF"]) == ("filter", "effective")
    refused("seccomp filter answers bpf(2)", "--security-opt seccomp=unconfined", wrap=wrap)


def test_seccomp_refuses_one_command_of_bpf() -> None:
    """A filter that looks at the arguments: maps can be made, programs cannot."""
    prog_load = 5
    told = check(wrap=under(errno.EPERM, "bpf", prog_load))
    assert cause(told, "bpf(2)", "TCP") == {"seccomp"}
    refused("seccomp filter answers bpf(2)", wrap=under(errno.EPERM, "bpf", prog_load))


def test_seccomp_refuses_perf_events() -> None:
    """Only the kprobe variant uses them: Weir runs all the same."""
    told = check(wrap=under(errno.EPERM, "perf_event_open"), code=0)
    assert cause(told, "seccomp") == {"seccomp"}
    assert "perf_event_open(2)" in rows(told)["seccomp"]["detail"]
    if rows(check(code=0))["kprobes"]["state"] == "found":
        assert cause(told, "kprobes") == {"seccomp"}


def test_seccomp_refuses_mounts_and_setns() -> None:
    told = rows(json.loads(weir("check", "--json", wrap=under(errno.EPERM, "mount")).stdout))
    if not mounts.find("bpf"):
        assert (told["bpf mount"]["state"], told["bpf mount"]["cause"]) == ("refused", "seccomp")
        refused("mount -t bpf bpf", "seccomp filter answers mount(2)", wrap=under(errno.EPERM, "mount"))
    assert told["seccomp"]["cause"] == "seccomp"
    told = rows(json.loads(weir("check", "--json", wrap=under(errno.EPERM, "setns")).stdout))
    assert told["sockets of other network namespaces"]["cause"] == "seccomp"
    assert not told["sockets of other network namespaces"]["fatal"]


@pytest.mark.parametrize(
    ("wrap", "feature", "name"),
    [
        (("unshare", "-p", "-f", "--mount-proc"), "host's pid namespace", "pid"),
        (("unshare", "-n"), "host's net namespace", "net"),
    ],
    ids=["pid", "net"],
)
def test_private_namespace(wrap: tuple[str, ...], feature: str, name: str) -> None:
    told = check(wrap=wrap, code=0)
    assert told["private_namespaces"] == [name]
    assert cause(told, feature) == {f"{name}-namespace"}
    assert feature not in rows(check(code=0))


def test_private_cgroup_namespace(cgroup: Callable[..., Path]) -> None:
    """As in a container: the cgroup v2 that is mounted there is not the host's root, nor can it be had."""
    wrap = _contained(cgroup("container"), "-f", "-p", "--mount-proc")
    told = check(wrap=wrap, code=0)
    assert told["private_namespaces"] == ["cgroup", "pid"]
    row = rows(told)["host's cgroup root"]
    assert (row["state"], row["cause"]) == ("refused", "cgroup-namespace")
    assert "UDP of everything else on the host is not counted" in row["effect"]
    assert "--cgroupns=host" in row["remedy"]
    done = _load_and_unload(wrap)
    assert done.returncode == 0, done
    assert "UDP is counted in this container only" in done.stderr


def test_the_hosts_cgroups_by_another_process(
    cgroup: Callable[..., Path], netns: Netns, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same with the host's PIDs: Weir mounts the host's root, and counts UDP of all cgroups."""
    wrap = _contained(cgroup("container"))
    told = check(wrap=wrap, code=0)
    assert told["private_namespaces"] == ["cgroup"]
    assert rows(told)["host's cgroup root"]["state"] == "replaced"
    plain = agents.command
    monkeypatch.setattr(agents, "command", lambda *arguments: [*wrap, *plain(*arguments)])
    with own_instance() as instance, Agent(instance, (netns,)).ready() as agent:
        with udp_pair(netns, netns) as pair:
            pair.run("send", 23, 100)
            name, (port,) = "weir_udp_sent_bytes_total", pair.ports
            page = agent.page_when(lambda p: both(p, name, port) == (2300, 2300))
            assert both(page, name, port) == (2300, 2300)
        assert agent.terminate() == 0
        monkeypatch.undo()


def _contained(folder: Path, *more: str) -> tuple[str, ...]:
    """In that cgroup, with it as the root of the cgroup v2 that is mounted, as container runtimes do."""
    inside = 'umount -a -t cgroup2; mount -t cgroup2 none /sys/fs/cgroup; exec "$@"'
    unshare = ("unshare", "-C", "-m", *more, "sh", "-ec", inside, "sh")
    return "sh", "-ec", f'echo $$ >{folder}/cgroup.procs; exec "$@"', "sh", *unshare


def _load_and_unload(wrap: tuple[str, ...]) -> subprocess.CompletedProcess[str]:
    """Both inside: what is pinned there is gone with the mount namespace."""
    script = f'"$@"; {sys.executable} -m weir unload --instance {NAME}'
    done = weir("load", "--instance", NAME, wrap=(*wrap, "sh", "-ec", script, "sh"))
    nothing_left(NAME)
    return done


def test_read_only_run() -> None:
    script = 'mount -t tmpfs -o ro none /run; exec "$@"'
    wrap = ("unshare", "-m", "--propagation", "private", "sh", "-ec", script, "sh")
    row = rows(check(wrap=wrap))[str(mounts.RUN)]
    assert (row["state"], row["cause"], row["fatal"]) == ("refused", "read-only", True)


def test_load_tells_every_program() -> None:
    before = program_ids()
    told = check("--load", code=0)
    protocols = ("http", "http2", "redis", "postgresql", "mysql", "dns")
    assert told["load"]["planes"] == dict.fromkeys(
        ("nat", "discovery", "tcp", "udp", "retire", "requests", "tls", *protocols), ""
    )
    assert (told["load"]["refused"], told["load"]["error"]) == ({}, "")
    assert {"tcp_state", "udp_ingress", "slot_fold", "find_connections"} <= told["load"]["verified"].keys()
    if rows(told)["verifier's count of instructions"]["state"] == "found":
        assert min(told["load"]["verified"].values()) > 0
        assert "instructions verified" in rows(told)["load: udp_egress"]["detail"]
    assert rows(told)["load: plane tcp"]["state"] == "found"
    nothing_left(NAME, before)
    assert not list(mounts.RUN.glob("check-*"))


def test_load_under_a_filter() -> None:
    """What is refused is the attaching of tracepoints: TCP is down, UDP is not, and Weir can run."""
    raw_tracepoint_open = 17
    told = check("--load", wrap=under(errno.EPERM, "bpf", raw_tracepoint_open), code=0)
    assert told["load"]["planes"]["udp"] == ""
    assert "seccomp" in told["load"]["planes"]["tcp"]
    assert "tcp_state" in told["load"]["refused"]
    assert cause(told, "load: plane tcp", "load: tcp_state") == {"load"}


def test_page_tells_a_cause_once() -> None:
    page = weir("check", wrap=under(errno.EPERM, "bpf")).stdout
    assert page.count("answers bpf(2) with EPERM") <= 3
    assert "as bpf(2)" in page


def test_help_and_options() -> None:
    said = weir("check", "--help").stdout
    assert "--load" in said
    assert "Exit code 0" in said
    assert weir("check", "extra").returncode == 2
