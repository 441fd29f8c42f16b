# SPDX-License-Identifier: Apache-2.0
"""From settings to a cache that serves; errors of settings come before anything is opened."""

from __future__ import annotations

from weir.config import Settings
from weir.errors import ConfigError
from weir.export.server import parse_listen
from weir.identity import cluster
from weir.labels import label_sources


def start(settings: Settings, allow: tuple[str, ...], tls: tuple[str, str], log_level: str) -> None:
    """ConfigError, one line, for settings that cannot be; ``tls`` are the files of certificate and key."""
    parse_listen(settings.listen)
    where = cluster.access(settings.kubeconfig, settings.kube_context, settings.api_server,
                           settings.token_file, settings.ca_file)  # fmt: skip
    external = cluster.external_label(settings.external_label)
    labels = {*filter(None, label_sources(settings.labels).values()), *(external[:1] if external else ())}
    if not where.wanted:
        raise ConfigError(
            "kube-cache: no cluster to watch; give --kubeconfig or --api-server, or run it in a pod"
        )
    try:
        from weir.kubecache.serve import Options, serve
    except ImportError as error:
        raise ConfigError(f"kube-cache needs {error.name}: pip install 'weir-agent[kubernetes]'") from None
    serve(where, Options(settings.listen, *tls, allow, tuple(sorted(labels))), log_level)
