# SPDX-License-Identifier: Apache-2.0
"""cgroup path -> container, pod, systemd unit.

Path forms: docker, containerd, cri-o and podman, with the cgroupfs and the systemd driver, alone
and below the kubelet; cgroup v1, v2 and hybrid give the same path.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

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
