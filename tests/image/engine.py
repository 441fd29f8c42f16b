# SPDX-License-Identifier: Apache-2.0
"""A Docker engine of the tests' own: its folders, its network namespace as "the host", its cgroup.

Nothing of an engine that the machine may have is used or changed.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.kernel.peers.netns import Netns

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
TAG = "weir:test"
#: Layers stay here between runs; a build that has them takes seconds.
DATA = Path(os.environ.get("WEIR_CACHE", "/var/cache/weir")) / "docker"
#: Debian's client, not another one that may come first in the path.
CLIENT = "/usr/bin/docker"
_PATIENCE = 60.0


@dataclass(frozen=True)
class Docker:
    """A running engine. ``cgroup`` is the v2 folder of its containers, by its path below the mount."""

    socket: Path
    cgroup: str
    host: Netns | None

    def run(self, *arguments: str, code: int | None = 0, stdin: str = "") -> subprocess.CompletedProcess[str]:
        """A command of the client; its exit code is checked, but for None."""
        done = subprocess.run(
            [CLIENT, *arguments], env=self.environment, text=True, capture_output=True, input=stdin,
            check=False, timeout=300,
        )  # fmt: skip
        assert code is None or done.returncode == code, f"docker {' '.join(arguments)}: {done}"
        return done

    @property
    def environment(self) -> dict[str, str]:
        """For the client, and for what calls it."""
        own = {"DOCKER_HOST": f"unix://{self.socket}", "DOCKER_BUILDKIT": "0"}
        return {**os.environ, **own, "PATH": f"/usr/bin:{os.environ['PATH']}"}

    def pid(self, container: str) -> int:
        """First process of a running container."""
        return int(self.run("inspect", "-f", "{{.State.Pid}}", container).stdout)


@contextlib.contextmanager
def docker(folder: Path, cgroup: str, host: Netns | None) -> Iterator[Docker]:
    """An engine in the namespace ``host``, or (None) in this one without a bridge; ended with its containers.

    It has a mount namespace of its own, with bpffs at /sys/fs/bpf as most hosts have it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    engine = Docker(folder / "sock", cgroup, host)
    settings = {
        "data-root": str(DATA), "exec-root": str(folder / "exec"), "pidfile": str(folder / "pid"),
        "hosts": [f"unix://{engine.socket}"],
        "cgroup-parent": cgroup, "exec-opts": ["native.cgroupdriver=cgroupfs"],
        "runtimes": {"fitting": {"path": str(HERE / "runtime.py")}}, "default-runtime": "fitting",
        **({} if host else {"bridge": "none", "iptables": False, "ip-forward": False, "ip-masq": False}),
    }  # fmt: skip
    (folder / "daemon.json").write_text(json.dumps(settings))
    enter = ["nsenter", f"--net={host.path}", "--"] if host else []
    mounts = "mount -t bpf bpf /sys/fs/bpf && exec dockerd --config-file $0"
    log = (folder / "dockerd.log").open("w+")
    daemon = subprocess.Popen(
        [*enter, "unshare", "-m", "sh", "-c", mounts, str(folder / "daemon.json")],
        stdout=log, stderr=log, env={**os.environ, "PATH": f"/usr/sbin:/sbin:{os.environ['PATH']}"},
    )  # fmt: skip
    try:
        _wait(engine, daemon, Path(log.name))
        yield engine
    finally:
        with contextlib.suppress(AssertionError):
            for container in engine.run("ps", "-aq").stdout.split():
                engine.run("rm", "-f", container, code=None)
        daemon.terminate()
        daemon.wait(30)
        log.close()


def _wait(engine: Docker, daemon: subprocess.Popen[bytes], log: Path) -> None:
    began = time.monotonic()
    while engine.run("version", code=None).returncode:
        said = log.read_text()[-2000:]
        assert daemon.poll() is None, said
        assert time.monotonic() - began < _PATIENCE, said
        time.sleep(0.2)


def build(engine: Docker) -> str:
    """Weir's image by its Dockerfile, on a base of Debian's packages; what the script said."""
    command = [
        str(ROOT / "scripts/image"),
        "--engine",
        CLIENT,
        "--tag",
        TAG,
        "--debootstrap",
        "--network",
        "host",
    ]
    done = subprocess.run(
        command, env=engine.environment, text=True, capture_output=True, check=False, timeout=900
    )
    assert done.returncode == 0, f"{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stdout.splitlines()[-1]


def needed() -> str:
    """What is missing for this ring, with the way to get it."""
    missing = [
        name
        for name in ("dockerd", "debootstrap", "runc")
        if not shutil.which(name, path="/usr/sbin:/usr/bin")
    ]
    return f"{', '.join(missing)}: scripts/setup --tests --image" if missing else ""


def remove_cgroups(name: str) -> None:
    """The engine's and those beside it (of agents), in every hierarchy."""
    tops = Path("/sys/fs/cgroup")
    for top in [*tops.glob(f"{name}*/"), *tops.glob(f"*/{name}*/")]:
        for folder in sorted([*top.glob("**/"), top], key=lambda p: -len(p.parts)):
            with contextlib.suppress(OSError):
                folder.rmdir()


if __name__ == "__main__":
    sys.exit(needed())
