# SPDX-License-Identifier: Apache-2.0
"""Bearer tokens as the API server judges them.

Whose one is: TokenReview, authentication.k8s.io/v1. Whether that user may get a page: SubjectAccessReview,
authorization.k8s.io/v1, of a URL that is no resource.
"""

from __future__ import annotations

import hashlib
import logging
import threading
import time
from collections.abc import Callable, Hashable
from typing import Any, TypeVar

import msgspec

from weir.identity.kube.api import Api

_log = logging.getLogger("weir.tokens")
_TOKENS = "/apis/authentication.k8s.io/v1/tokenreviews"
_ACCESS = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
#: Answers are remembered for so many seconds, and so many of them at most.
KEPT, MOST = 60.0, 16384
_LARGEST = 1 << 16

R = TypeVar("R", bound=msgspec.Struct)


class User(msgspec.Struct, frozen=True):
    """Who a token belongs to, as authorization wants to know it."""

    username: str = ""
    uid: str = ""
    groups: tuple[str, ...] = ()
    extra: dict[str, list[str]] = msgspec.field(default_factory=dict)


class _TokenStatus(msgspec.Struct):
    authenticated: bool = False
    user: User = msgspec.field(default_factory=User)


class _TokenReview(msgspec.Struct):
    status: _TokenStatus = msgspec.field(default_factory=_TokenStatus)


class _AccessStatus(msgspec.Struct):
    allowed: bool = False


class _AccessReview(msgspec.Struct):
    status: _AccessStatus = msgspec.field(default_factory=_AccessStatus)


class UnavailableError(Exception):
    """The API server gave no answer."""


def bearer(authorization: str) -> str:
    """The token of an Authorization header (RFC 6750, section 2.1); "" where it is none."""
    scheme, _, token = authorization.partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


class Reviews:
    """Remembers answers, tokens by their digests only; for any thread."""

    def __init__(self, api: Api, clock: Callable[[], float] = time.monotonic) -> None:
        self._api = api
        self._clock = clock
        self._lock = threading.Lock()
        self._known: dict[Hashable, tuple[float, Any]] = {}

    def user(self, token: str) -> User | None:
        """Whose it is; None where it is nobody's. UnavailableError."""
        found: User | None = self._remembered(
            hashlib.sha256(token.encode()).digest(), lambda: self._review(token)
        )
        return found

    def may_get(self, user: User, path: str) -> bool:
        """Whether the user may get that page. UnavailableError."""
        key = (user.username, user.uid, user.groups, path)
        return bool(self._remembered(key, lambda: self._access(user, path)))

    def _remembered(self, key: Hashable, ask: Callable[[], Any]) -> Any:
        until, answer = self._known.get(key, (0.0, None))
        if until <= self._clock():
            answer = ask()
            with self._lock:
                if len(self._known) >= MOST:
                    del self._known[next(iter(self._known))]
                self._known[key] = self._clock() + KEPT, answer
        return answer

    def _review(self, token: str) -> User | None:
        body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": token}}
        status = self._post(_TOKENS, body, _TokenReview).status
        return status.user if status.authenticated and status.user.username else None

    def _access(self, user: User, path: str) -> bool:
        spec = {
            "user": user.username, "uid": user.uid, "groups": user.groups, "extra": user.extra,
            "nonResourceAttributes": {"path": path, "verb": "get"},
        }  # fmt: skip
        body = {"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": spec}
        return self._post(_ACCESS, body, _AccessReview).status.allowed

    def _post(self, path: str, body: object, kind: type[R]) -> R:
        try:
            response = self._api.post(path, msgspec.json.encode(body))
            text, status = response.read(_LARGEST), response.status
            response.release_conn()
            if status != 201:
                what = path.rpartition("/")[2]
                raise UnavailableError(f"HTTP status {status}; it needs the verb create on {what}")
            return msgspec.json.decode(text, type=kind)
        except UnavailableError as error:
            _log.warning("the API server does not review tokens: %s", error)
            raise
        except Exception as error:  # noqa: BLE001 whatever the network or the server does
            _log.warning("the API server cannot be asked about a token: %s", error)
            raise UnavailableError(str(error)) from None
