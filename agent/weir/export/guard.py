# SPDX-License-Identifier: Apache-2.0
"""Who may read: TLS, client certificates and users, as the file of ``--web-config`` says, and users of the
cluster, as its API server says (``--kube-auth``).

The file, and the files that it names, are read anew when they change; what cannot be read then leaves
everything as it was, and is said.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import logging
import os
import ssl
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import bcrypt

from weir.errors import ConfigError
from weir.export.app import PAGES, Reply
from weir.export.webconfig import WebConfig, read
from weir.health import Health

if TYPE_CHECKING:
    from weir.identity.kube.tokens import Reviews

_LOOK_SECONDS = 1.0
_KNOWN = 64  # passwords that were right, kept by their digest
#: Open to all, who are told only whether the agent is well: a kubelet's probes have no password.
OPEN = ("/healthz", "/readyz")
#: Compared with where there is no such user, so that both take the same time.
_NOBODY = b"$2b$10$........................................................."

_PLAIN = "text/plain; charset=utf-8"
_log = logging.getLogger(__name__)


class Guard:
    """Without a file everybody may read, in plain text; with ``reviews`` who the cluster lets."""

    def __init__(self, health: Health[Any], path: str = "", reviews: Reviews | None = None) -> None:
        """ConfigError, one line, for a file that cannot be. What is refused is counted in ``health``."""
        self._health = health
        self._reviews = reviews
        self._path = Path(path) if path else None
        self._config = WebConfig()
        self._context: ssl.SSLContext | None = None
        self._seen: object = None
        self._looked = 0.0
        self._lock = threading.Lock()
        self._checking = threading.Lock()  # a check takes a tenth of a second of a CPU: one at a time
        self._known: dict[bytes, None] = {}
        self._key = os.urandom(32)
        if self._path:
            self._read(self._path)

    @property
    def asks(self) -> bool:
        """Whether anything is asked of who reads."""
        return bool(self._config.users or self._reviews) or self.asks_certificates

    @property
    def asks_certificates(self) -> bool:
        """Whether clients are asked for a certificate."""
        return self._config.tls is not None and self._config.tls.verify is not ssl.CERT_NONE

    def tls(self) -> ssl.SSLContext | None:
        """What a new connection is spoken to with; None: plain text."""
        if self._path and time.monotonic() - self._looked > _LOOK_SECONDS:
            with self._lock:
                self._look(self._path)
        return self._context

    def refusal(self, path: str, authorization: str, certificate: Any = None) -> Reply | None:
        """A reply for those who may not read this page."""
        self.tls()
        config = self._config
        if path in OPEN:
            return None
        if config.tls and config.tls.names and not config.tls.names & _names(certificate or {}):
            self._health.refuse("certificate")
            return Reply(403, _PLAIN, [b"this certificate is not allowed here\n"])
        if self._reviews and authorization.lower().startswith("bearer "):
            return self._by_cluster(self._reviews, authorization, path)
        if config.users and self._user(config.users, authorization):
            return None
        if config.users or self._reviews:
            return self._unknown()
        return None

    def _by_cluster(self, reviews: Reviews, authorization: str, path: str) -> Reply | None:
        from weir.identity.kube.tokens import UnavailableError, bearer

        try:
            token = bearer(authorization)
            user = reviews.user(token) if token else None
            if user is None:
                return self._unknown()
            if reviews.may_get(user, _as_cluster_names(path)):
                return None
        except UnavailableError:
            self._health.refuse("unavailable")
            return Reply(503, _PLAIN, [b"the API server cannot be asked who this is\n"])
        self._health.refuse("forbidden")
        return Reply(403, _PLAIN, [b"this user may not get this page\n"])

    def _unknown(self) -> Reply:
        self._health.refuse("authorization")
        if self._reviews:  # a password may be another way; one challenge is enough
            realm = {"WWW-Authenticate": 'Bearer realm="weir"'}
            return Reply(401, _PLAIN, [b"a bearer token is needed\n"], **realm)
        realm = {"WWW-Authenticate": 'Basic realm="weir", charset="UTF-8"'}
        return Reply(401, _PLAIN, [b"a user and a password are needed\n"], **realm)

    def _user(self, users: Mapping[str, bytes], authorization: str) -> bool:
        scheme, _, encoded = authorization.partition(" ")
        try:
            user, colon, password = base64.b64decode(encoded, validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError, ValueError):
            return False
        if scheme.lower() != "basic" or not colon or "\0" in user + password:
            return False
        wanted = users.get(user, _NOBODY)
        digest = hmac.new(
            self._key, b"\0".join((wanted, user.encode(), password.encode())), hashlib.sha256
        ).digest()
        if digest in self._known:
            return True
        with self._checking:
            # bcrypt takes 72 bytes at most; Go's, which Prometheus has, refuses longer ones
            right = (
                len(password.encode()) <= 72 and bcrypt.checkpw(password.encode(), wanted) and user in users
            )
        if right:
            while len(self._known) >= _KNOWN:
                self._known.pop(next(iter(self._known)), None)
            self._known[digest] = None
        return right

    def _look(self, path: Path) -> None:
        self._looked = time.monotonic()
        if self._config.stamp(path) == self._seen:
            return
        try:
            self._read(path)
            _log.info("the web configuration was read anew", extra={"fields": {"file": str(path)}})
        except ConfigError as error:
            self._seen = self._config.stamp(path)
            self._health.fail("web_config")
            _log.error("the web configuration stays as it was: %s", error)

    def _read(self, path: Path) -> None:
        config = read(path)
        context = config.tls.context() if config.tls else None
        self._config, self._context = config, context
        self._seen = config.stamp(path)
        self._looked = time.monotonic()


def _as_cluster_names(path: str) -> str:
    """The URL that a role has for a page: not below /api, which every user of a cluster may get (its role
    system:discovery). Pages that are none are one, so that the API server is asked once.
    """
    if path == "/metrics":
        return path
    return f"/weir{path if path in PAGES else '/none'}"


def _names(certificate: Mapping[str, Any]) -> frozenset[str]:
    """The subject's alternative names of a certificate as ``SSLSocket.getpeercert`` has it."""
    return frozenset(str(value) for _, value in certificate.get("subjectAltName", ()))
