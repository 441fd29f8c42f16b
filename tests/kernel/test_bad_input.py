# SPDX-License-Identifier: Apache-2.0
"""What a user gets wrong, and hosts that Weir cannot run on: one clear line, an exit code, nothing left."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.kernel.agents import Agent, nothing_left, pins, weir
from tests.kernel.peers.netns import PREFIX, Netns
from weir.kernel import mounts
from weir.kernel.attach import _KPROBE_TYPE

NAME = f"{PREFIX}bad"
NOBODY = 65534
RUN = ("run", "--instance", NAME, "--listen", "127.0.0.1:0")
#: `unshare -m` with mounts of its own, made by the script.
PRIVATE = ("unshare", "-m", "--propagation", "private", "sh", "-ec")


@pytest.fixture(autouse=True)
def _clean() -> Iterator[None]:
    """What a wrong start left must not fail the next test too."""
    yield
    if pins(NAME).exists():
        weir("unload", "--instance", NAME)


def fails(done: subprocess.CompletedProcess[str], code: int, *said: str, instance: str = NAME) -> None:
    """One line on standard error that says all of ``said``, this exit code, and nothing is left."""
    (line,) = done.stderr.splitlines() or [""]
    assert line.startswith("weir: ")
    missing = [words for words in said if words not in line]
    assert not missing, line
    assert (done.returncode, done.stdout) == (code, "")
    nothing_left(instance)


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("--intervall", "5"), 2, ("No such option", "--intervall", "Did you mean", "weir run --help")),
        (("--interval", "abc"), 2, ("--interval", "'abc' is not a valid float")),
        (("--interval", "0.01"), 2, ("--interval", "0.01 is not in the range 0.1<=x<=3600")),
        (("--idle", "0"), 2, ("--idle", "x>=1")),
        (("--slots", "12"), 2, ("--slots", "64<=x<=1048576")),
        (("--port", "0"), 2, ("--port", "0 is not in the range 1<=x<=65535")),
        (("--port", "65536"), 2, ("--port", "65536 is not in the range")),
        (("--port", "http"), 2, ("--port", "'http' is not a valid integer")),
        (("--tcp", "magic"), 2, ("--tcp", "'magic' is not one of", "storage")),
        (("--log-level", "loud"), 2, ("--log-level", "'loud' is not one of")),
        (("--netns", f"{PREFIX}none"), 2, (f"--netns {PREFIX}none: /run/netns/", "No such file")),
        (("--netns", "/etc/passwd"), 2, ("/etc/passwd is no network namespace", "ip netns list")),
        (("--netns", "1"), 2, ("--netns 1: no process and no name", "ip netns list")),
        (("--cgroup", "no/such"), 2, ("--cgroup no/such: ", "is no cgroup v2 folder", "/proc/PID/cgroup")),
        (("--cgroup", "/etc"), 2, ("--cgroup /etc: ", "is no cgroup v2 folder")),
        (("--cidr", "office"), 2, ("--cidr 'office'", "NAME=CIDR")),
        (("--cidr", "office=10.1.0.0/33"), 2, ("--cidr 'office=10.1.0.0/33'", "is not a network")),
        (("--cidr", "office=10.1.2.3/16"), 2, ("--cidr 'office=10.1.2.3/16'", "did you mean 10.1.0.0/16?")),
        (("--labels", "colour"), 2, ("--labels: 'colour' is not a label", "source_address")),
        (("--labels", "process", "--labels", "process"), 2, ("--labels: 'process' is there twice",)),
        (("--listen", "127.0.0.1"), 6, ("--listen '127.0.0.1'", "HOST:PORT")),
        (("--listen", "127.0.0.1:http"), 6, ("--listen '127.0.0.1:http'", "'http' is not a port")),
        (("--listen", "127.0.0.1:70000"), 6, ("--listen '127.0.0.1:70000'", "'70000' is not a port")),
        (("--listen", "192.0.2.1:80"), 6, ("cannot listen on 192.0.2.1:80", "Cannot assign", "--listen")),
        (("--listen", "no.such.host.invalid:80"), 6, ("cannot listen on no.such.host.invalid",)),
        (("--instance", "a/b"), 2, ("--instance 'a/b'", "letters, digits")),
        (("--instance", ""), 2, ("--instance ''", "letters, digits")),
        (("surprise",), 2, ("unexpected extra argument (surprise)", "weir run --help")),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)  # fmt: skip
def test_options(arguments: tuple[str, ...], code: int, said: tuple[str, ...]) -> None:
    fails(weir(*RUN, *arguments), code, *said)


@pytest.mark.parametrize("output", ["/", "/no/such/folder/report.html"])
def test_a_report_that_cannot_be_written(output: str) -> None:
    """It is said before anything is loaded and watched."""
    fails(
        weir("report", "--alone", "--output", output),
        2,
        f"--output {output}: cannot be written",
        "- for stdout",
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("intervall: 5", ("unknown key 'intervall'", "did you mean interval?")),
        ("zzz: 5", ("unknown key 'zzz'", "known keys: allow, api_server, bpf_stats, ca_file, cgroup, ")),
        ("instance: a\ninterval: [1\nslots: 5", (" line 3: ", "not YAML")),
        ("- interval", ("KEY: VALUE",)),
        ("5", ("KEY: VALUE",)),
        ("interval: soon", ("interval: ", "'soon' is not a valid float")),
        ("interval: [1, 2]", ("interval: ", "one value")),
        ("interval: {every: 5}", ("interval: ", "one value")),
        ("interval:", ("interval: ", "one value")),
        ("udp: perhaps", ("udp: ", "'perhaps' is not a valid boolean")),
        ("port: http", ("port: ", "'http' is not a valid integer")),
        ("port: [80, http]", ("port: ", "'http' is not a valid integer")),
        ("port: {http: 80}", ("port: ", "a value or a list")),
        ("max-series: 3", ("max-series: ", "3 is not in the range")),
        ("cidr: [office]", ("'office'", "NAME=CIDR")),
        ("tcp: magic", ("tcp: ", "'magic' is not one of")),
        ("interval: 5\ninterval: 7", (" line 2: ", "interval", "twice")),
        ("interval: \x07", ("not YAML",)),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_yaml(tmp_path: Path, text: str, said: tuple[str, ...]) -> None:
    config = tmp_path / "weir.yaml"
    config.write_text(text)
    where = () if text.startswith("cidr") else (f"--config {config}",)
    fails(weir(*RUN, "--config", str(config)), 2, *where, *said)


def test_config_that_cannot_be_read(tmp_path: Path) -> None:
    fails(weir(*RUN, "--config", str(tmp_path)), 2, f"--config {tmp_path}: Is a directory")
    none = tmp_path / "none.yaml"
    fails(weir(*RUN, "--config", str(none)), 2, f"--config {none}: No such file")
    fails(weir(*RUN, env={"WEIR_CONFIG": str(none)}), 2, f"--config {none}: No such file")
    none.write_bytes(b"interval: \xff\xfe5")
    fails(weir(*RUN, "--config", str(none)), 2, f"--config {none}: ", "UTF-8")


def test_environment() -> None:
    fails(weir(*RUN, env={"WEIR_INTERVAL": "abc"}), 2, "WEIR_INTERVAL", "'abc' is not a valid float")
    fails(weir(*RUN, env={"WEIR_PORT": "80 http"}), 2, "WEIR_PORT", "'http' is not a valid integer")
    fails(weir(*RUN, env={"WEIR_UDP": "perhaps"}), 2, "WEIR_UDP", "'perhaps' is not a valid boolean")


def test_port_in_use() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        fails(weir(*RUN, "--listen", listen), 6, f"cannot listen on {listen}", "in use", "--listen")


@pytest.mark.parametrize("command", ["run", "load", "unload", "top"])
def test_not_root(command: str) -> None:
    more = {"run": RUN[1:], "load": RUN[1:3], "unload": RUN[1:3], "top": ("--alone", "--once")}[command]
    done = weir(command, *more, user=NOBODY)
    fails(done, 3, "must be root", "sudo")


def test_a_command_that_is_not_there() -> None:
    fails(weir("rnu"), 2, "No such command 'rnu'", "Did you mean 'run'?", "weir --help")


def test_load_checks_what_run_checks() -> None:
    for bad in (("--cidr", "office=nowhere"), ("--netns", f"{PREFIX}none"), ("--cgroup", "no/such")):
        fails(weir("load", "--instance", NAME, *bad), 2, bad[0], bad[1].split("=")[0])


def private(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return weir(*arguments, wrap=(*PRIVATE, f'{script}; exec "$@"', "sh"))


NO_BTF = "mount -t tmpfs none /sys/kernel/btf"
READ_ONLY = "umount -a -t bpf 2>/dev/null || true; mount -t bpf -o ro bpf /sys/fs/bpf"


def test_no_btf() -> None:
    for arguments in (RUN, ("load", "--instance", NAME)):
        said = "no BTF (/sys/kernel/btf/vmlinux)", "CONFIG_DEBUG_INFO_BTF=y"
        fails(private(NO_BTF, *arguments), 4, *said)
    checked = private(NO_BTF, "check")
    assert (checked.returncode, checked.stderr) == (1, "")
    assert "Weir cannot run here: BTF" in checked.stdout


def test_btf_that_is_none() -> None:
    done = private(f"{NO_BTF}; echo nonsense that is long enough >/sys/kernel/btf/vmlinux", *RUN)
    fails(done, 4, "/sys/kernel/btf/vmlinux", "no BTF magic")


def test_read_only_bpffs() -> None:
    for arguments in (RUN, ("load", "--instance", NAME)):
        fails(private(READ_ONLY, *arguments), 3, "/sys/fs/bpf/weir", "Read-only file system", "remount,rw")


def test_no_capabilities() -> None:
    if shutil.which("setpriv") is None:
        pytest.skip("setpriv is not installed")
    bounded = ("setpriv", "--bounding-set", "-sys_admin,-bpf,-perfmon", "--inh-caps", "-all")
    done = weir(*RUN, wrap=bounded)
    fails(done, 3, "CAP_")  # to mount bpffs, or to use it


@pytest.mark.skipif(_KPROBE_TYPE.exists(), reason="this kernel has kprobes")
def test_a_variant_that_this_kernel_lacks() -> None:
    fails(weir(*RUN, "--tcp", "kprobe"), 4, "'kprobe'", "possible: storage", "weir check")


def _options(instance: str) -> Any:
    """What the kernel side was loaded with."""
    return json.loads((mounts.RUN / instance / "kernel.json").read_text())["options"]


def test_precedence(instance: str, netns: Netns, tmp_path: Path) -> None:
    """Command line, then environment, then YAML, then the default."""
    config = tmp_path / "weir.yaml"
    config.write_text(
        f"netns: {netns.name}\nport: 1009\nslots: 128\nmax-connections: 100\ninterval: 0.5\nlabels: process\n"
        "udp: no\nlog_level: debug\ncidr:\n  - office=203.0.113.0/24\n"
    )
    with Agent(instance, (), "--config", str(config)).ready():
        found = _options(instance)
        assert found["netns"] == [netns.inode]
        assert (found["ports"], found["slots"], found["connections"]) == ([1009], 128, 100)
        assert (found["udp"], found["variant"]) == (False, "auto")
        assert "203.0.113.0/24" in str(found["folds"])
    env = {"WEIR_SLOTS": "256", "WEIR_PORT": "1009 503", "WEIR_UDP": "1", "WEIR_CONFIG": str(config)}
    with Agent(instance, (), "--slots", "512", "--tcp", "tracepoint", env=env).ready():
        found = _options(instance)
        assert (found["ports"], found["slots"], found["connections"]) == ([503, 1009], 512, 100)
        assert (found["udp"], found["variant"]) == (True, "tracepoint")
