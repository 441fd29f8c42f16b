# SPDX-License-Identifier: Apache-2.0
"""The Kubernetes API beside the pipeline, where there is one. What needs its libraries is imported then."""

from __future__ import annotations

import logging
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from weir.errors import ConfigError
from weir.identity.kube.api import Access, in_cluster

if TYPE_CHECKING:
    from weir.identity.kube.index import ClusterIndex
    from weir.identity.kube.names import ClusterNames
    from weir.identity.kube.tokens import Reviews
    from weir.identity.kube.watch import ClusterWatch

_log = logging.getLogger("weir.kube")


@dataclass(frozen=True)
class ClusterState:
    """How the watches fare. ``ages``: seconds since the API server was last heard of a resource (infinite:
    never); ``events`` by (resource, event); ``objects`` in the index by kind.
    """

    ages: Mapping[str, float] = field(default_factory=dict)
    events: Mapping[tuple[str, str], int] = field(default_factory=dict)
    objects: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Cluster:
    """An index, the watches that fill it, and the names made of it."""

    index: ClusterIndex
    watch: ClusterWatch
    names: ClusterNames


def external_label(text: str) -> tuple[str, str] | None:
    """Name and value of ``--external-label``. ConfigError where it is neither empty nor KEY=VALUE."""
    name, equals, value = text.partition("=")
    if text and not (name and equals):
        raise ConfigError(f"--external-label {text!r}: write it as KEY=VALUE, as in isext=true")
    return (name, value) if text else None


def access(
    kubeconfig: str = "", context: str = "", server: str = "", token_file: str = "", ca_file: str = ""
) -> Access:
    """Where the API is. ConfigError for settings that do not go together."""
    if kubeconfig and server:
        raise ConfigError("--kubeconfig and --api-server: give one of them")
    for name, value, needs, there in (
        ("--kube-context", context, "--kubeconfig", kubeconfig),
        ("--token-file", token_file, "--api-server", server),
        ("--ca-file", ca_file, "--api-server", server),
    ):
        if value and not there:
            raise ConfigError(f"{name} {value}: it goes with {needs}")
    return Access(kubeconfig, context, server, token_file, ca_file)


def reviewer(where: Access) -> Reviews:
    """Whom to ask about readers' tokens: of a pod its own API server, though names come from a cache.

    ConfigError where there is no cluster, for files that cannot be, and without the libraries.
    """
    where = Access() if in_cluster() else where
    if not where.wanted:
        raise ConfigError("--kube-auth: of which cluster? give --kubeconfig FILE or --api-server URL")
    try:
        from weir.identity.kube.tokens import Reviews

        return Reviews(where.open())
    except ImportError as error:
        raise ConfigError(f"--kube-auth needs {error.name}: pip install 'weir-agent[kubernetes]'") from None


def connect(
    where: Access,
    node: str = "",
    external: tuple[str, str] | None = None,
    labels: frozenset[str] = frozenset(),
) -> Cluster:
    """Open the API, which is not asked anything yet; ``node`` "": this host's name is the node's.

    ConfigError for files and settings that cannot be, and without the libraries.
    """
    try:
        from weir.identity.kube.index import ClusterIndex
        from weir.identity.kube.names import ClusterNames
        from weir.identity.kube.watch import ClusterWatch

        api = where.open()
    except ImportError as error:
        raise ConfigError(
            f"the Kubernetes API needs {error.name}: pip install 'weir-agent[kubernetes]', or --no-kubernetes"
        ) from None
    node = node or socket.gethostname()
    index = ClusterIndex()
    wanted = labels | ({external[0]} if external else frozenset())
    _log.info("asking the Kubernetes API", extra={"fields": {"server": api.server, "node": node}})
    return Cluster(index, ClusterWatch(api, index, node, wanted), ClusterNames(index, node, external))
