# SPDX-License-Identifier: Apache-2.0
"""Settings of a run, from options, ``WEIR_…`` variables and a YAML file; checked here, once."""

from __future__ import annotations

import difflib
import ipaddress
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from weir.errors import ConfigError
from weir.kernel import netns
from weir.kernel.options import KernelOptions, Network, default_folds

#: TLS sessions that are read at once; each takes 0.5 kB of kernel memory, one that speaks HTTP/2 7 kB more.
_SESSIONS = 16384


@dataclass(frozen=True)
class Settings:
    """Everything a Weir is told; times in seconds."""

    instance: str = "host"
    listen: str = "127.0.0.1:10435"
    web_config: str = ""
    kube_auth: bool = False
    interval: float = 5.0
    tcp: str = "auto"
    udp: bool = True
    requests: bool = True
    request_rows: int = 4096
    tls: bool = False
    route: tuple[str, ...] = ()
    opaque_port: tuple[int, ...] = ()
    skip_port: tuple[int, ...] = ()
    nat: str = "auto"
    netns: tuple[str, ...] = ()
    cgroup: tuple[str, ...] = ()
    port: tuple[int, ...] = ()
    cidr: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    slots: int = 16384
    max_connections: int = 1_000_000
    max_series: int = 100_000
    idle: float = 600.0
    max_cpu: float = 0.0
    max_memory: int = 0
    bpf_stats: bool = False
    kubernetes: bool = True
    kubeconfig: str = ""
    kube_context: str = ""
    api_server: str = ""
    token_file: str = ""
    ca_file: str = ""
    node_name: str = ""
    external_label: str = ""
    services: str = "auto"

    def kernel(self, cgroup2: Path) -> KernelOptions:
        """What the kernel side is told; ConfigError for a namespace or cgroup that is not there."""
        return KernelOptions(
            variant=self.tcp,
            udp=self.udp,
            requests=self.request_rows if self.requests else 0,
            routes=self.route,
            tls=_SESSIONS if self.tls and self.requests else 0,
            opaque_ports=tuple(sorted(set(self.opaque_port) - set(self.skip_port))),
            skip_ports=tuple(sorted(set(self.skip_port))),
            nat=self.nat,
            slots=self.slots,
            connections=self.max_connections,
            folds=default_folds(tuple(networks(self.cidr))),
            netns=tuple(sorted({netns.inode(n) for n in self.netns})),
            cgroups=tuple(sorted({cgroup(c, cgroup2) for c in self.cgroup})),
            ports=tuple(sorted(set(self.port))),
        )


def networks(named: Iterable[str]) -> Iterable[Network]:
    """The networks of ``NAME=CIDR`` texts (checked by the identity stage)."""
    for text in named:
        try:
            yield ipaddress.ip_network(text.partition("=")[2], strict=False)
        except ValueError:
            continue


def cgroup(text: str, cgroup2: Path) -> tuple[int, str]:
    """Id and folder of a cgroup given by path, below the cgroup v2 mount or whole."""
    path = Path(text)
    if not path.is_dir() or path.is_absolute() is False:
        path = cgroup2 / text.lstrip("/")
    if not (path / "cgroup.procs").exists():
        raise ConfigError(
            f"--cgroup {text}: {path} is no cgroup v2 folder; give a path below {cgroup2}"
            " (the 0:: line of /proc/PID/cgroup)"
        )
    return path.stat().st_ino, str(path)


def read_yaml(path: Path, known: Iterable[str]) -> Mapping[str, Any]:
    """Settings from a YAML file; keys are option names with ``-`` or ``_``."""
    raw = _parse(path)
    names = sorted(known)
    settings: dict[str, Any] = {}
    for key, line, value in raw:
        name = key.replace("-", "_")
        if name not in names:
            near = difflib.get_close_matches(name, names, 1)
            hint = f"did you mean {near[0]}?" if near else f"known keys: {', '.join(names)}"
            raise ConfigError(f"--config {path}: line {line}: unknown key {key!r}; {hint}")
        if name in settings:
            raise ConfigError(f"--config {path}: line {line}: {key} is there twice")
        settings[name] = value
    return settings


def _parse(path: Path) -> Iterable[tuple[str, int, Any]]:
    """Keys, their lines (from 1) and values of a YAML mapping."""
    try:
        loader = yaml.SafeLoader(path.read_text(encoding="utf-8"))
        root = loader.get_single_node()
        if root is None or root.tag.endswith(":null"):
            return []
        if isinstance(root, yaml.MappingNode):
            return [
                (str(key.value), key.start_mark.line + 1, loader.construct_object(value, deep=True))
                for key, value in root.value
            ]
    except OSError as error:
        raise ConfigError(f"--config {path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"--config {path}: not UTF-8 text (byte {error.start})") from None
    except yaml.YAMLError as error:
        where = getattr(error, "problem_mark", None)
        line = f" line {where.line + 1}:" if where else ""
        why = " ".join(str(getattr(error, "problem", error)).split())
        raise ConfigError(f"--config {path}:{line} not YAML ({why})") from None
    raise ConfigError(f"--config {path}: write settings as KEY: VALUE lines, as interval: 5")
