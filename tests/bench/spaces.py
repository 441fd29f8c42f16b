# SPDX-License-Identifier: Apache-2.0
"""Namespaces, a cgroup and processes of a benchmark; all of them go away with it."""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.kernel.peers.netns import Netns, run
from weir.kernel import mounts
from weir.kernel.pins import Instance, instances

#: Namespaces, cgroups and instances are named weirb-<pid of the script>-<number>.
PREFIX = "weirb-"
ROOT = Path(__file__).parents[2]
_CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)
_numbers = itertools.count(1)


def name() -> str:
    """A name that nothing else has."""
    return f"{PREFIX}{os.getpid()}-{next(_numbers)}"


@contextlib.contextmanager
def make_netns() -> Iterator[Netns]:
    """A namespace with ``lo`` up and all ports for clients."""
    made = Netns(name())
    run("ip", "netns", "add", made.name)
    try:
        run("ip", "-n", made.name, "link", "set", "lo", "up")
        made.sysctl("net.ipv4.ip_local_port_range", "1024 65535")
        made.sysctl("net.ipv4.tcp_fin_timeout", "1")
        yield made
    finally:
        made.delete()


@contextlib.contextmanager
def make_cgroup() -> Iterator[Path]:
    """A cgroup v2 folder; cgroup v2 is mounted privately where the host has none."""
    folder = mounts.ensure("cgroup2") / name()
    folder.mkdir()
    try:
        yield folder
    finally:
        for _ in range(50):  # a process that has just ended may hold it
            with contextlib.suppress(OSError):
                folder.rmdir()
                break


@contextlib.contextmanager
def entered(netns: Netns) -> Iterator[None]:
    """The calling thread is in that namespace; sockets made here stay there."""
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    there = os.open(netns.path, os.O_RDONLY)
    try:
        if _libc.setns(there, _CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), f"cannot enter {netns.name}")
        yield
    finally:
        _libc.setns(home, _CLONE_NEWNET)
        os.close(there)
        os.close(home)


def socket_in(netns: Netns) -> socket.socket:
    """A TCP socket of that namespace."""
    with entered(netns):
        return socket.socket(socket.AF_INET, socket.SOCK_STREAM)


def environment(cache: Path) -> dict[str, str]:
    """For Python children: the sources, and bytecode kept in ``cache`` as an installed package has it."""
    kept = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE" and k[:5] != "WEIR_"}
    return {**kept, "PYTHONPATH": f"{ROOT / 'agent'}:{ROOT}", "PYTHONPYCACHEPREFIX": str(cache)}


def inside(netns: Netns, *command: str, cgroup: Path | None = None, cpu: int | None = None) -> list[str]:
    """The command that runs in a namespace (a cgroup, on one CPU) and is killed when this script ends."""
    enter = ["sh", "-c", f'echo $$ >{cgroup}/cgroup.procs && exec "$@"', "sh"] if cgroup else []
    pinned = ["taskset", "-c", str(cpu)] if cpu is not None else []
    return [*enter, "nsenter", f"--net={netns.path}", "setpriv", "--pdeathsig", "KILL", *pinned, *command]


@contextlib.contextmanager
def process(command: list[str], cache: Path, **more: object) -> Iterator[subprocess.Popen[str]]:
    """A child that has ended when the block has: SIGTERM, after 10 s SIGKILL."""
    child = subprocess.Popen(
        command, env=environment(cache), cwd=ROOT, text=True, **{"stderr": subprocess.PIPE, **more}  # type: ignore[call-overload]
    )  # fmt: skip
    try:
        yield child
    finally:
        child.terminate()
        try:
            child.wait(10)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
        for pipe in (child.stdin, child.stdout, child.stderr):
            if pipe:
                with contextlib.suppress(OSError):
                    pipe.close()


def traffic(netns: Netns, cache: Path, *arguments: object, cgroup: Path | None = None) -> None:
    """Run ``tests.bench.traffic`` to its end in the namespace, a minute at most."""
    command = inside(netns, sys.executable, "-m", "tests.bench.traffic", *map(str, arguments), cgroup=cgroup)
    subprocess.run(command, env=environment(cache), cwd=ROOT, check=True, timeout=60)


def sweep() -> None:
    """Remove what runs of this script left that were killed."""
    bpffs = mounts.ensure("bpf")
    left = [Path("/run/netns", n) for n in _dead(Path("/run/netns"))]
    for netns in left:
        run("ip", "netns", "del", netns.name)
    for instance in instances(bpffs):
        if instance in _dead(bpffs / "weir"):
            Instance(instance, bpffs).remove()
    for folder in _dead(mounts.RUN):
        shutil.rmtree(mounts.RUN / folder)
    cgroup2 = mounts.find("cgroup2")
    for folder in _dead(cgroup2) if cgroup2 else ():
        (cgroup2 / folder).rmdir()


def _dead(folder: Path) -> list[str]:
    there = sorted(p.name for p in folder.glob(PREFIX + "*")) if folder.is_dir() else []
    return [n for n in there if not Path("/proc", n.split("-")[1]).exists()]
