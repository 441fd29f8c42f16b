# SPDX-License-Identifier: Apache-2.0
"""Who may read a cache: the users of ``--allow``, known by their bearer tokens."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection

from weir.identity.kube.api import Api
from weir.identity.kube.tokens import Reviews, UnavailableError, bearer

__all__ = ["Tokens", "UnavailableError"]


class Tokens:
    """For any thread."""

    def __init__(self, api: Api, users: Collection[str], clock: Callable[[], float] = time.monotonic) -> None:
        self._reviews = Reviews(api, clock)
        self._users = frozenset(users)

    def allowed(self, authorization: str) -> bool:
        """Whether an Authorization header is that of a user who may read. UnavailableError."""
        token = bearer(authorization)
        user = self._reviews.user(token) if token else None
        return user is not None and user.username in self._users
