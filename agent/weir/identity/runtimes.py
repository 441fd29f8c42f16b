# SPDX-License-Identifier: Apache-2.0
"""Container id -> the name that its user gave it, from the runtimes' files or Docker's socket.

docker: ``containers/ID/config.v2.json``, else ``GET /containers/ID/json`` of its API
(https://docs.docker.com/reference/api/engine/); podman: ``storage/*-containers/containers.json``
(https://github.com/containers/storage); nerdctl: ``HASH/names/NAMESPACE/NAME``, files with the id in them.
Other runtimes have no names on disk.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from weir.identity import podlogs
from weir.identity.cache import Cache
from weir.identity.containers import Container

#: https://docs.docker.com/reference/compose-file/services/#labels
_PROJECT = "com.docker.compose.project"
_LARGEST = 1 << 20


@dataclass(frozen=True)
class Name:
    """What a container is called; ``project`` is that of docker compose, "" without one."""

    name: str
    project: str = ""


@dataclass(frozen=True)
class Roots:
    """Where the runtimes keep their files, Docker's socket, and the folders of a kubelet's pods."""

    docker: Path = Path("/var/lib/docker")
    podman: Path = Path("/var/lib/containers")
    nerdctl: Path = Path("/var/lib/nerdctl")
    socket: Path = Path("/var/run/docker.sock")
    pods: Path = podlogs.FOLDER

    @staticmethod
    def found(proc: Path = Path("/proc"), debugged: Path = Path("/host")) -> Roots:
        """Those of this host, also from within a container that sees them.

        As they are, or below the host's root: where `kubectl debug node/…` mounts it (``debugged``), or that
        of process 1, which a container with the host's process ids and CAP_SYS_PTRACE may look at.
        """

        def seen(path: Path) -> Path:
            for top in (Path("/"), debugged, proc / "1/root"):
                here = top / path.relative_to("/")
                with contextlib.suppress(OSError):
                    if here.exists():
                        return here
            return path

        return Roots(*(seen(getattr(Roots, each.name)) for each in fields(Roots)))


class ContainerNames:
    """Names by id; a name that is not found is looked for again after ``negative_ttl`` seconds."""

    def __init__(
        self,
        roots: Roots,
        clock: Callable[[], float],
        limit: int = 4096,
        negative_ttl: float = 60.0,
    ) -> None:
        self._roots = roots
        self._clock = clock
        self._negative_ttl = negative_ttl
        self._api = DockerApi(roots.socket)
        self._silent_until = float("-inf")
        self.cache: Cache[str, Name] = Cache(limit, clock)

    def name(self, container: Container) -> Name:
        """Return the name its user gave it, else the first 12 digits of the id."""
        known = self.cache.get(container.id)
        if known is not None:
            return known
        found = next(filter(None, self._looked_up(container)), None)
        if found is not None:
            return self.cache.put(container.id, found)
        return self.cache.put(container.id, Name(container.id[:12]), self._negative_ttl)

    def _looked_up(self, container: Container) -> Iterator[Name | None]:
        if container.runtime in ("docker", ""):
            config = self._roots.docker / "containers" / container.id / "config.v2.json"
            yield _named(_read_json(config))
            yield self._asked(container.id)
        if container.runtime in ("podman", ""):
            yield self._podman(container.id)
        if container.runtime in ("containerd", ""):
            yield self._nerdctl(container.id)

    def _asked(self, container_id: str) -> Name | None:
        """A daemon that hangs must not hold up every new container: it is left alone for a while."""
        if self._clock() < self._silent_until:
            return None
        try:
            return _named(self._api.container(container_id))
        except (OSError, http.client.HTTPException, ValueError):
            self._silent_until = self._clock() + self._negative_ttl
            return None

    def _podman(self, container_id: str) -> Name | None:
        for path in _listed(self._roots.podman / "storage", "*-containers/*containers.json"):
            listed = _read_json(path)
            for entry in listed if isinstance(listed, list) else []:
                if isinstance(entry, dict) and entry.get("id") == container_id:
                    names = entry.get("names")
                    if isinstance(names, list) and names and isinstance(names[0], str):
                        return Name(names[0])
        return None

    def _nerdctl(self, container_id: str) -> Name | None:
        for path in _listed(self._roots.nerdctl, "*/names/*/*"):
            try:
                if path.stat().st_size < 256 and path.read_text(encoding="ascii").strip() == container_id:
                    return Name(path.name)
            except (OSError, ValueError):
                continue
        return None


class DockerApi:
    """One question at a time, each on a connection of its own; ``patience`` in seconds."""

    def __init__(self, path: Path, patience: float = 1.0) -> None:
        self._path = path
        self._patience = patience

    def container(self, container_id: str) -> Any:
        """What the daemon says of a container, None where it knows none or there is no daemon.

        OSError, HTTPException or ValueError where it does not answer as it should.
        """
        if not self._path.is_socket():
            return None
        connection = _UnixConnection(self._path, self._patience)
        try:
            connection.request("GET", f"/containers/{container_id}/json", headers={"Host": "docker"})
            reply = connection.getresponse()
            text = reply.read(_LARGEST)
            return json.loads(text) if reply.status == http.client.OK else None
        finally:
            connection.close()


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path, patience: float) -> None:
        super().__init__("docker", timeout=patience)
        self._socket_path = str(path)

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._socket_path)


def _named(config: Any) -> Name | None:
    """From Docker's description of a container, on disk and by its API."""
    name = config.get("Name") if isinstance(config, dict) else None
    if not isinstance(name, str) or not name.strip("/"):
        return None
    inner = config.get("Config")
    labels = inner.get("Labels") if isinstance(inner, dict) else None
    project = labels.get(_PROJECT) if isinstance(labels, dict) else None
    return Name(name.lstrip("/"), project if isinstance(project, str) else "")


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
