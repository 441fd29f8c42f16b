# SPDX-License-Identifier: Apache-2.0
"""Names of service ports, as the host's /etc/services has them."""

from __future__ import annotations

import socket
from collections.abc import Callable


class ServiceNames:
    """Port -> name through ``getservbyport``, remembered for ``limit`` ports; the oldest goes first."""

    def __init__(self, limit: int = 4096, lookup: Callable[[int, str], str] = socket.getservbyport) -> None:
        self._limit = limit
        self._lookup = lookup
        self._known: dict[tuple[int, str], str] = {}
        self.evicted = 0

    def __len__(self) -> int:
        return len(self._known)

    def name(self, port: int, protocol: str) -> str:
        """Name of the service; "" if it has none."""
        key = port, protocol
        known = self._known.get(key)
        if known is None:
            if len(self._known) >= self._limit:
                del self._known[next(iter(self._known))]
                self.evicted += 1
            known = self._known[key] = self._find(port, protocol)
        return known

    def text(self, port: int, protocol: str) -> str:
        """Port and name, as in ``443 https``; "" for port 0."""
        return f"{port} {self.name(port, protocol)}".rstrip() if port else ""

    def _find(self, port: int, protocol: str) -> str:
        try:
            return self._lookup(port, protocol)
        except (OSError, OverflowError):
            return ""
