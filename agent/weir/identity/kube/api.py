# SPDX-License-Identifier: Apache-2.0
"""How the Kubernetes API is reached: by a service account's token, or by what a kubeconfig says.

A kubeconfig has many forms of credentials, which the official client knows. Its modules take 20 MB and half a
second, so they are imported for a kubeconfig only; for a token and a CA file urllib3 does, its transport.
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

Headers = Callable[[], Mapping[str, str]]


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
        """ConfigError, one line, where a file or setting cannot be; ImportError without the libraries."""
        if self.kubeconfig:
            return _by_kubeconfig(self.kubeconfig, self.context)
        if not self.server:
            return _in_cluster()
        if not self.server.startswith(("https://", "http://")):
            raise ConfigError(f"--api-server {self.server}: write it as https://HOST:PORT")
        if self.ca_file and not os.access(self.ca_file, os.R_OK):
            raise ConfigError(f"--ca-file {self.ca_file}: cannot be read")
        return _by_token(self.server.rstrip("/"), self.token_file, self.ca_file, "--token-file ")


def in_cluster() -> bool:
    """Whether this process is a pod that has a service account's token."""
    return "KUBERNETES_SERVICE_HOST" in os.environ and (SERVICE_ACCOUNT / "token").exists()


def _in_cluster() -> Api:
    """https://kubernetes.io/docs/tasks/run-application/access-api-from-pod/"""
    token, authority = SERVICE_ACCOUNT / "token", SERVICE_ACCOUNT / "ca.crt"
    host, port = (os.environ.get(f"KUBERNETES_SERVICE_{part}", "") for part in ("HOST", "PORT"))
    if not host or not port:
        raise ConfigError("service account: KUBERNETES_SERVICE_HOST and _PORT are not set; is this a pod?")
    if not os.access(authority, os.R_OK):
        raise ConfigError(f"service account: {authority} cannot be read; mount its token into the pod")
    shown = f"[{host}]" if ":" in host else host
    return _by_token(f"https://{shown}:{port}", str(token), str(authority), "service account: ")


def _by_token(server: str, token_file: str, ca_file: str, called: str) -> Api:
    from urllib3 import PoolManager

    pool = PoolManager(cert_reqs="CERT_REQUIRED", ca_certs=ca_file or None, num_pools=2, maxsize=8)
    if not token_file:
        return Api(server, pool, dict)
    read = _token_reader(Path(token_file), called)
    read()
    return Api(server, pool, lambda: {"Authorization": f"Bearer {read()}"})


def _by_kubeconfig(path: str, context: str) -> Api:
    from kubernetes.client import Configuration
    from kubernetes.client.rest import RESTClientObject
    from kubernetes.config import ConfigException, load_kube_config

    configuration: Any = Configuration()
    configuration.retries = False  # the reflectors try again, with their own patience
    try:
        load_kube_config(path, context or None, configuration)  # type: ignore[no-untyped-call]
    except (ConfigException, OSError, ValueError, TypeError, AttributeError, KeyError) as error:
        why = " ".join(str(error).split()) or type(error).__name__
        raise ConfigError(f"--kubeconfig {path}: {why}") from None

    def headers() -> dict[str, str]:
        settings = configuration.auth_settings().values()
        return {s["key"]: s["value"] for s in settings if s.get("in") == "header" and s.get("value")}

    return Api(str(configuration.host), RESTClientObject(configuration).pool_manager, headers)


def _token_reader(path: Path, called: str, clock: Callable[[], float] = time.monotonic) -> Callable[[], str]:
    """The file's text, read again once a minute: tokens are rotated."""
    known, due = "", float("-inf")

    def read() -> str:
        nonlocal known, due
        if clock() >= due:
            try:
                known = path.read_text(encoding="ascii").strip()
            except (OSError, ValueError) as error:
                if not known:
                    raise ConfigError(f"{called}{path}: {getattr(error, 'strerror', error)}") from None
            due = clock() + _TOKEN_EVERY
        return known

    return read


class Api:
    """Requests; one connection pool (urllib3's). ``headers`` are asked for at each request."""

    def __init__(self, server: str, pool: Any, headers: Headers) -> None:
        self.server = server
        self._pool = pool
        self._headers = headers

    def get(
        self, path: str, query: Mapping[str, str], accept: str = "application/json", timeout: float = 30.0
    ) -> HTTPResponse:
        """A response that is not read yet; ``timeout`` (seconds) is for connecting and between two reads."""
        return self._request("GET", path, accept, timeout, fields=dict(query))

    def post(self, path: str, body: bytes, timeout: float = 30.0) -> HTTPResponse:
        """As :meth:`get`, with a JSON body."""
        return self._request("POST", path, "application/json", timeout, body=body)

    def _request(self, method: str, path: str, accept: str, timeout: float, **more: Any) -> HTTPResponse:
        from urllib3 import Timeout

        headers = {"Accept": accept, "User-Agent": "weir", "Accept-Encoding": "gzip", **self._headers()}
        if "body" in more:
            headers["Content-Type"] = "application/json"
        response: HTTPResponse = self._pool.request(
            method, self.server + path, headers=headers, preload_content=False,
            timeout=Timeout(connect=10.0, read=timeout), redirect=False, retries=False, **more,
        )  # fmt: skip
        return response
