# SPDX-License-Identifier: Apache-2.0
"""The local end: by cgroup to the container, else the systemd unit, else the process."""

from __future__ import annotations

from collections.abc import Callable

from weir.identity.cgroups import CgroupPaths
from weir.identity.containers import choose_path, parse_container, parse_pod, parse_unit
from weir.identity.process import Processes
from weir.identity.runtimes import ContainerNames
from weir.identity.types import UNKNOWN, Owner


class LocalOwners:
    """Owner of a socket from its cgroup id, tgid and comm.

    The socket's own cgroup decides. Where it is the root (a host with cgroup v1 only) or no longer
    known, the cgroup of the process does, as long as it is still the same process.
    """

    def __init__(
        self,
        paths: CgroupPaths,
        names: ContainerNames,
        processes: Processes,
        pod_names: Callable[[Owner], Owner] | None = None,
    ) -> None:
        self.paths = paths
        self.names = names
        self.processes = processes
        self._pod_names = pod_names
        self._seen: dict[tuple[int, int, str], Owner] = {}

    def begin(self) -> None:
        """Start a drain: within one, the same process is asked once."""
        self._seen.clear()

    def owner(self, cgroup_id: int, tgid: int, comm: str) -> Owner:
        """Return who owns a socket; ``UNKNOWN`` where nothing tells."""
        key = cgroup_id, tgid, comm
        known = self._seen.get(key)
        if known is None:
            known = self._find(cgroup_id, tgid, comm)
            if known.uid and self._pod_names:
                known = self._pod_names(known)
            self._seen[key] = known
        return known

    def _find(self, cgroup_id: int, tgid: int, comm: str) -> Owner:
        path = self.paths.path(cgroup_id)
        if path in (None, "/"):
            path = choose_path(self.processes.cgroup(tgid, comm))
        process = self.processes.name(tgid, comm)
        container, pod = parse_container(path or ""), parse_pod(path or "")
        if container is not None:
            called = self.names.name(container)
            return Owner(
                called.name,
                "container",
                called.project,
                container_id=container.id,
                runtime=container.runtime,
                process=process,
                pod=pod,
                attribution="cgroup",
                uid=pod,
            )
        if unit := parse_unit(path or ""):
            return Owner(unit, "unit", unit=unit, process=process, attribution="cgroup")
        if process:
            return Owner(process, "process", process=process, pod=pod, attribution="process", uid=pod)
        return UNKNOWN
