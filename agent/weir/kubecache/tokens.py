# SPDX-License-Identifier: Apache-2.0
"""Who may read: bearer tokens, as the API server judges them (TokenReview, authentication.k8s.io/v1)."""

from __future__ import annotations

import hashlib
import logging
import threading
import time
from collections.abc import Callable, Collection

import msgspec

from weir.identity.kube.api import Api

_log = logging.getLogger("weir.kubecache")
_PATH = "/apis/authentication.k8s.io/v1/tokenreviews"
_KEPT, _MOST = 60.0, 16384


class _User(msgspec.Struct):
    username: str = ""


class _Status(msgspec.Struct):
    authenticated: bool = False
    user: _User = msgspec.field(default_factory=_User)


class _Review(msgspec.Struct):
    status: _Status = msgspec.field(default_factory=_Status)


_decode = msgspec.json.Decoder(_Review).decode


class UnavailableError(Exception):
    """The API server gave no answer to who it is."""


class Tokens:
    """Remembers answers for a minute, by the tokens' digests, and so many of them at most; for any thread."""

    def __init__(self, api: Api, users: Collection[str], clock: Callable[[], float] = time.monotonic) -> None:
        self._api = api
        self._users = frozenset(users)
        self._clock = clock
        self._lock = threading.Lock()
        self._known: dict[bytes, tuple[float, bool]] = {}

    def allowed(self, authorization: str) -> bool:
        """Whether an Authorization header is that of a user who may read. UnavailableError."""
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() != "bearer" or not token:
            return False
        digest = hashlib.sha256(token.encode()).digest()
        until, answer = self._known.get(digest, (0.0, False))
        if until <= self._clock():
            answer = self._ask(token)
            with self._lock:
                if len(self._known) >= _MOST:
                    del self._known[next(iter(self._known))]
                self._known[digest] = self._clock() + _KEPT, answer
        return answer

    def _ask(self, token: str) -> bool:
        body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": token}}
        try:
            response = self._api.post(_PATH, msgspec.json.encode(body))
            text, status = response.read(1 << 16), response.status
            response.release_conn()
            if status != 201:
                raise UnavailableError(f"HTTP status {status}; it needs the verb create on tokenreviews")
            found = _decode(text).status
        except UnavailableError as error:
            _log.warning("the API server does not review tokens: %s", error)
            raise
        except Exception as error:  # noqa: BLE001 whatever the network or the server does
            _log.warning("the API server cannot be asked about a token: %s", error)
            raise UnavailableError(str(error)) from None
        return found.authenticated and found.user.username in self._users
