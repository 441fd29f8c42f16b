# SPDX-License-Identifier: Apache-2.0
"""cgroup path -> container, pod, systemd unit; container id -> name. No daemon is asked.

Path forms: docker, containerd, cri-o and podman, with the cgroupfs and the systemd driver, alone
and below the kubelet; cgroup v1, v2 and hybrid give the same path.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from weir.identity.cache import Cache

_HEX = r"[0-9a-f]{64}"
_RUNTIMES = {
    "docker": "docker",
    "cri-containerd": "containerd",
    "nerdctl": "containerd",
    "crio": "cri-o",
    "libpod": "podman",
    "libpod-payload": "podman",
}
#: `docker-ID.scope`, `libpod-ID`, `kubepods-….slice:cri-containerd:ID`
_PREFIXED = re.compile(rf"(?:^|:)({'|'.join(sorted(_RUNTIMES, reverse=True))})[-:]({_HEX})(?:\.scope)?$")
_BARE = re.compile(rf"^{_HEX}$")
_POD = re.compile(
    r"(?:^|[-/])pod([0-9a-f]{8}(?:[-_][0-9a-f]{4}){3}[-_][0-9a-f]{12}|[0-9a-f]{32})(?=\.slice|/|:|$)"
)


@dataclass(frozen=True)
class Container:
    """What a cgroup path tells: ``id`` has 64 hex digits, ``runtime`` and ``pod`` (uid) may be empty."""

    runtime: str
    id: str
    pod: str = ""


def parse_container(path: str) -> Container | None:
    """Return the innermost container that a cgroup path lies in, or None.

    A bare id below the kubelet's cgroups does not tell its runtime: it is "" there, docker elsewhere.
    """
    for part in reversed(path.split("/")):
        if match := _PREFIXED.search(part):
            return Container(_RUNTIMES[match[1]], match[2], parse_pod(path))
        if _BARE.match(part):
            pod = parse_pod(path)
            return Container("" if pod else "docker", part, pod)
    return None


def parse_pod(path: str) -> str:
    """Return the uid of the innermost pod in a cgroup path, with dashes; "" outside of pods.

    Static pods have 32 hex digits without dashes.
    """
    found = _POD.findall(path)
    return str(found[-1]).replace("_", "-") if found else ""


def parse_unit(path: str) -> str:
    """Return the innermost systemd service of a cgroup path, or "".

    A scope inside is not a workload (a login session, one desktop application, systemd's own
    init.scope), nor is the service manager of a user: the process name says more.
    """
    for part in reversed(path.split("/")):
        if part.endswith(".scope"):
            return ""
        if part.endswith(".service"):
            return "" if part.startswith("user@") else part
    return ""


def choose_path(text: str) -> str:
    """Return the telling path of a ``/proc/PID/cgroup``: v2's, else the one of a v1 hierarchy.

    On a v1 host not every controller need have the container's folder: the first path that names a
    container wins, else that of v2, else of systemd, else any below the root; "/" when none is.
    """
    lines = [line.split(":", 2) for line in text.splitlines() if line.count(":") >= 2]
    ranked = sorted(lines, key=lambda line: (line[0] != "0", line[1] != "name=systemd"))
    below = [path for _, _, path in ranked if path not in ("", "/")]
    telling = (path for path in below if parse_container(path))
    return next(telling, below[0] if below else "/")


class ContainerNames:
    """Names of containers from the runtimes' own files; ``docker`` and ``podman`` are their roots.

    docker: ``containers/ID/config.v2.json``; podman: ``storage/*-containers/containers.json``
    (https://github.com/containers/storage). Other runtimes have no names on disk.
    """

    def __init__(
        self,
        docker: Path,
        podman: Path,
        clock: Callable[[], float],
        limit: int = 4096,
        negative_ttl: float = 60.0,
    ) -> None:
        self._docker = docker
        self._podman = podman
        self._negative_ttl = negative_ttl
        self.cache: Cache[str, str] = Cache(limit, clock)

    def name(self, container: Container) -> str:
        """Return the name its user gave it, else the first 12 digits of the id."""
        known = self.cache.get(container.id)
        if known is not None:
            return known
        found = self._docker_name(container.id) if container.runtime in ("docker", "") else ""
        if not found and container.runtime in ("podman", ""):
            found = self._podman_name(container.id)
        if found:
            return self.cache.put(container.id, found)
        return self.cache.put(container.id, container.id[:12], self._negative_ttl)

    def _docker_name(self, container_id: str) -> str:
        config = _read_json(self._docker / "containers" / container_id / "config.v2.json")
        name = config.get("Name") if isinstance(config, dict) else None
        return name.lstrip("/") if isinstance(name, str) else ""

    def _podman_name(self, container_id: str) -> str:
        for path in _listed(self._podman / "storage", "*-containers/*containers.json"):
            listed = _read_json(path)
            for entry in listed if isinstance(listed, list) else []:
                if isinstance(entry, dict) and entry.get("id") == container_id:
                    names = entry.get("names")
                    if isinstance(names, list) and names and isinstance(names[0], str):
                        return names[0]
        return ""


def _listed(folder: Path, pattern: str) -> Iterable[Path]:
    try:
        return sorted(folder.glob(pattern))
    except OSError:
        return ()


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
