# SPDX-License-Identifier: Apache-2.0
"""How the Kubernetes API is reached: configuration and transport are the official client's.

Its modules take 30 MB and half a second, so they are imported where a cluster is asked for.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from weir.errors import ConfigError

if TYPE_CHECKING:
    from urllib3 import BaseHTTPResponse as HTTPResponse

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_TOKEN_EVERY = 60.0


@dataclass(frozen=True)
class Access:
    """Where the API is, as the user said it; all empty: the pod's service account, if there is one."""

    kubeconfig: str = ""
    context: str = ""
    server: str = ""
    token_file: str = ""
    ca_file: str = ""

    @property
    def wanted(self) -> bool:
        """Whether there is a cluster to ask."""
        return bool(self.kubeconfig or self.server) or in_cluster()

    def open(self) -> Api:
        """ConfigError, one line, where a file or setting cannot be."""
        if self.server:
            return Api(_explicit(self))
        from kubernetes.config import ConfigException, load_incluster_config, load_kube_config

        configuration = _configuration()
        try:
            if self.kubeconfig:
                load_kube_config(self.kubeconfig, self.context or None, configuration)  # type: ignore[no-untyped-call]
            else:
                load_incluster_config(configuration)  # type: ignore[no-untyped-call]
        except (ConfigException, OSError, ValueError, TypeError, AttributeError, KeyError) as error:
            what = (
                f"--kubeconfig {self.kubeconfig}" if self.kubeconfig else f"service account {SERVICE_ACCOUNT}"
            )
            raise ConfigError(f"{what}: {' '.join(str(error).split()) or type(error).__name__}") from None
        return Api(configuration)


def in_cluster() -> bool:
    """Whether this process is a pod that has a service account's token."""
    return "KUBERNETES_SERVICE_HOST" in os.environ and (SERVICE_ACCOUNT / "token").exists()


def _configuration() -> Any:
    from kubernetes.client import Configuration

    configuration = Configuration()
    configuration.retries = False  # the reflectors try again, with their own patience
    return configuration


def _explicit(access: Access) -> Any:
    configuration = _configuration()
    if not access.server.startswith(("https://", "http://")):
        raise ConfigError(f"--api-server {access.server}: write it as https://HOST:PORT")
    configuration.host = access.server.rstrip("/")
    if access.ca_file:
        if not os.access(access.ca_file, os.R_OK):
            raise ConfigError(f"--ca-file {access.ca_file}: cannot be read")
        configuration.ssl_ca_cert = access.ca_file
    if access.token_file:
        read = _token_reader(Path(access.token_file))
        configuration.api_key_prefix["BearerToken"] = "Bearer"

        def refresh(configuration: Any) -> None:
            configuration.api_key["BearerToken"] = read()

        refresh(configuration)
        configuration.refresh_api_key_hook = refresh
    return configuration


def _token_reader(path: Path, clock: Callable[[], float] = time.monotonic) -> Callable[[], str]:
    """The file's text, read again once a minute: tokens are rotated."""
    known, due = "", float("-inf")

    def read() -> str:
        nonlocal known, due
        if clock() >= due:
            try:
                known = path.read_text(encoding="ascii").strip()
            except (OSError, ValueError) as error:
                if not known:
                    raise ConfigError(f"--token-file {path}: {getattr(error, 'strerror', error)}") from None
            due = clock() + _TOKEN_EVERY
        return known

    return read


class Api:
    """GET requests; one connection pool. ``configuration`` is the official client's."""

    def __init__(self, configuration: Any) -> None:
        from kubernetes.client.rest import RESTClientObject

        self._configuration = configuration
        self._pool = RESTClientObject(configuration).pool_manager

    @property
    def server(self) -> str:
        """The API's URL."""
        return str(self._configuration.host)

    def get(
        self, path: str, query: Mapping[str, str], accept: str = "application/json", timeout: float = 30.0
    ) -> HTTPResponse:
        """A response that is not read yet; ``timeout`` (seconds) is for connecting and between two reads."""
        from urllib3 import Timeout

        headers = {"Accept": accept, "User-Agent": "weir"}
        for setting in self._configuration.auth_settings().values():
            if setting.get("in") == "header" and setting.get("value"):
                headers[setting["key"]] = setting["value"]
        response: HTTPResponse = self._pool.request(
            "GET", self._configuration.host + path, fields=dict(query), headers=headers,
            preload_content=False, timeout=Timeout(connect=10.0, read=timeout), redirect=False,
        )  # fmt: skip
        return response
