# SPDX-License-Identifier: Apache-2.0
"""Network namespaces and cgroups that a test makes for itself and that go away with it."""

from __future__ import annotations

import contextlib
import itertools
import os
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

#: Namespaces and cgroups are named weirt-<pid of the test run>-<number>.
PREFIX = "weirt-"
_numbers = itertools.count(1)


def _name() -> str:
    return f"{PREFIX}{os.getpid()}-{next(_numbers)}"


def run(*command: str, stdin: str = "") -> str:
    """Standard output; a failure carries what the command said."""
    done = subprocess.run(command, input=stdin, text=True, capture_output=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()}")
    return done.stdout


@dataclass(frozen=True)
class Netns:
    """A network namespace with ``lo`` up; ``v4`` and ``v6`` are its addresses, on the veth if it has one."""

    name: str
    v4: str = "127.0.0.1"
    v6: str = "::1"
    interface: str = "lo"

    @property
    def path(self) -> Path:
        return Path("/run/netns", self.name)

    @property
    def inode(self) -> int:
        """What Weir calls ``netns``."""
        return self.path.stat().st_ino

    def run(self, *command: str, stdin: str = "") -> str:
        """Runs a command inside; /sys and the mounts stay the host's."""
        return run("nsenter", f"--net={self.path}", "--", *command, stdin=stdin)

    def sysctl(self, name: str, value: str) -> None:
        self.run("sh", "-c", f"echo '{value}' >/proc/sys/{name.replace('.', '/')}")

    def refuse(self, port: int, how: str = "drop") -> None:
        """What comes in for TCP ``port`` is lost, or what the nft verdict ``how`` says."""
        rules = f"""add table inet weirt
            add chain inet weirt in {{ type filter hook input priority 0; }}
            add rule inet weirt in tcp dport {port} {how}"""
        self.run("nft", "-f", "-", stdin=rules)

    def accept_all(self) -> None:
        """Takes back what :meth:`refuse` did."""
        self.run("nft", "delete", "table", "inet", "weirt")

    def delete(self) -> None:
        """Removes the name; the namespace ends with its last process. May be called twice."""
        if self.path.exists():
            run("ip", "netns", "del", self.name)


@dataclass(frozen=True)
class Wire:
    """Two namespaces and a veth pair between them, ``eth0`` at both ends."""

    client: Netns
    server: Netns

    #: An address of the wire's network that nobody has, and one that no route leads to.
    silent: ClassVar = {"v4": "10.211.0.99", "v6": "fd00:211::99", "mapped": "::ffff:10.211.0.99"}
    unroutable: ClassVar = {"v4": "192.0.2.1", "v6": "2001:db8::1", "mapped": "::ffff:192.0.2.1"}


@contextlib.contextmanager
def make_netns() -> Iterator[Netns]:
    """One namespace with nothing but ``lo``."""
    netns = Netns(_name())
    _add(netns)
    try:
        yield netns
    finally:
        netns.delete()


@contextlib.contextmanager
def make_wire() -> Iterator[Wire]:
    """Ends with addresses in 10.211.0.0/24 and fd00:211::/64, and no default route.

    The ends know each other's hardware address, so that no first datagram is lost while one asks for it.
    """
    client, server = (Netns(_name(), f"10.211.0.{i}", f"fd00:211::{i}", "eth0") for i in (1, 2))
    macs = {client: "02:00:00:00:00:01", server: "02:00:00:00:00:02"}
    try:
        for end in macs:
            _add(end)
        veth = f"link add eth0 address {macs[client]} type veth peer name eth0 address {macs[server]}"
        run("ip", "-n", client.name, *veth.split(), "netns", server.name)
        for end, other in ((client, server), (server, client)):
            commands = (
                f"addr add {end.v4}/24 dev eth0\naddr add {end.v6}/64 dev eth0\nlink set eth0 up\n"
                f"neigh add {other.v4} lladdr {macs[other]} dev eth0 nud permanent\n"
                f"neigh add {other.v6} lladdr {macs[other]} dev eth0 nud permanent\n"
            )
            run("ip", "-n", end.name, "-batch", "-", stdin=commands)
        for end in macs:
            _wait_until_up(end)
        yield Wire(client, server)
    finally:
        for end in macs:
            end.delete()


def _wait_until_up(end: Netns) -> None:
    """Before its state is UP a link may still drop what is sent."""
    for _ in range(300):
        if " UP " in run("ip", "-n", end.name, "-br", "link", "show", end.interface):
            return
        time.sleep(0.01)
    raise RuntimeError(f"{end.name}: {end.interface} does not come up")


def _add(netns: Netns) -> None:
    run("ip", "netns", "add", netns.name)
    run("ip", "-n", netns.name, "link", "set", "lo", "up")
    netns.sysctl("net.ipv4.ip_local_port_range", "1024 65535")
    netns.sysctl("net.ipv6.conf.default.accept_dad", "0")  # addresses are usable at once


def cgroup_root() -> Path | None:
    """Where cgroup v2 is mounted (hybrid hosts have it beside v1), None where it is not."""
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, target, kind, *_ = line.split()
        if kind == "cgroup2":
            return Path(target)
    return None


@contextlib.contextmanager
def make_cgroup(root: Path, below: str = "") -> Iterator[Path]:
    """A new cgroup v2 folder; ``below`` adds levels, such as ``docker/<64 hex>``. The innermost is given."""
    top = root / _name()
    levels = [top]
    for part in Path(below).parts:
        levels.append(levels[-1] / part)
    try:
        for level in levels:
            level.mkdir()
        yield levels[-1]
    finally:
        for level in reversed(levels):
            _remove_cgroup(level)


def _remove_cgroup(folder: Path) -> None:
    """A process that has just ended may hold its cgroup for a moment."""
    for _ in range(100):
        try:
            folder.rmdir()
        except FileNotFoundError:
            return
        except OSError:
            time.sleep(0.02)
        else:
            return
    raise RuntimeError(f"{folder} still has processes: {(folder / 'cgroup.procs').read_text().split()}")


def sweep() -> None:
    """Removes what test runs left that were killed."""
    folders = [Path("/run/netns")]
    if root := cgroup_root():
        folders.append(root)
    for folder in folders:
        for left in folder.glob(PREFIX + "*"):
            if Path("/proc", left.name.split("-")[1]).exists():
                continue
            if folder == folders[0]:
                run("ip", "netns", "del", left.name)
            else:
                for level in sorted(left.rglob("*/"), reverse=True):
                    _remove_cgroup(level)
                _remove_cgroup(left)
