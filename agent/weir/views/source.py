# SPDX-License-Identifier: Apache-2.0
"""Where views get their rows from."""

from __future__ import annotations

import http.client
import json
import socket
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol, TypeVar, runtime_checkable
from urllib.parse import urlsplit

from weir.errors import WeirError
from weir.views.requests import RequestRow
from weir.views.rows import ConnectionRow, EdgeRow

R = TypeVar("R")

_LIMIT = 20_000  # rows asked for
_MAX_BYTES = 64 << 20  # of one answer


class Source(Protocol):
    """Rows now; every call may take a while and raise WeirError."""

    def edges(self) -> list[EdgeRow]:
        """Pairs, in any order."""

    def connections(self) -> list[ConnectionRow]:
        """Live sockets, in any order."""

    def describe(self) -> str:
        """What the header shows as the source, short."""

    def close(self) -> None:
        """Let go of what the source holds."""


@runtime_checkable
class Lossy(Protocol):
    """A source that also knows what could not be counted or listed."""

    def losses(self) -> Mapping[str, int]:
        """Losses by name, as of the last rows; must not block."""


class _UnixConnection(http.client.HTTPConnection):
    """To a socket in the file system."""

    def __init__(self, path: Path, timeout: float) -> None:
        super().__init__("agent", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        """As the base class: OSError where nobody listens."""
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


class _Unix(urllib.request.HTTPHandler):
    """Whatever the address says, a socket in the file system is asked."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path

    def http_open(self, req: urllib.request.Request) -> Any:
        """Called by the opener."""
        return self.do_open(lambda _, timeout, **__: _UnixConnection(self._path, timeout), req)  # type: ignore[arg-type]


class ApiSource:
    """A running agent's ``/api/v1/…``."""

    def __init__(self, url: str | Path, timeout: float = 5.0) -> None:
        """Take an agent's address (``http://127.0.0.1:10435``) or socket and a time limit in seconds."""
        over: tuple[urllib.request.BaseHandler, ...] = ()
        where = ""
        if isinstance(url, Path):
            over, where, url = (_Unix(url),), str(url), "http://agent"
        parts = urlsplit(url if "//" in url else f"http://{url}")
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise WeirError(f"agent {url}: an address such as http://127.0.0.1:10435 is needed")
        self._url = parts.geturl().rstrip("/")
        self._timeout = timeout
        self._losses: dict[str, int] = {}
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), *over)
        self._where = where or self._url.partition("//")[2]

    def edges(self) -> list[EdgeRow]:
        """Pairs of the agent's last snapshot."""
        return self._rows("edges", EdgeRow.from_json)

    def connections(self) -> list[ConnectionRow]:
        """Live sockets."""
        return self._rows("connections", ConnectionRow.from_json)

    def sample(self) -> tuple[list[EdgeRow], list[RequestRow]]:
        """Pairs and their requests; these first, so that each one's pair is among the others."""
        requests = self._rows("requests", RequestRow.from_json)
        return self.edges(), requests

    def losses(self) -> Mapping[str, int]:
        """What the agent says it lost, and rows it did not list."""
        return self._losses

    def describe(self) -> str:
        """Address of the agent."""
        return f"agent at {self._where}"

    def close(self) -> None:
        """Nothing is held between two calls."""

    def _rows(self, what: str, read: Callable[[object], R]) -> list[R]:
        answer = self._get(f"/api/v1/{what}?limit={_LIMIT}")
        try:
            rows = [read(row) for row in answer[what]]
            self._losses = _losses(answer, len(rows))
        except (KeyError, TypeError, ValueError) as error:
            raise WeirError(f"{self.describe()} answers in a way this version cannot read: {error}") from None
        return rows

    def _get(self, path: str) -> dict[str, Any]:
        try:
            with self._opener.open(self._url + path, timeout=self._timeout) as reply:
                body = reply.read(_MAX_BYTES + 1)
        except urllib.error.HTTPError as error:
            with error:
                raise WeirError(f"{self.describe()}: {_problem(error)}") from None
        except (OSError, http.client.HTTPException, ValueError) as error:
            reason = getattr(error, "reason", None) or error
            raise WeirError(f"cannot reach the {self.describe()} ({reason}): is `weir run` there?") from None
        if len(body) > _MAX_BYTES:
            raise WeirError(f"{self.describe()}: an answer of more than {_MAX_BYTES >> 20} MiB")
        try:
            answer = json.loads(body)
        except (ValueError, RecursionError):
            answer = None
        if not isinstance(answer, dict):
            raise WeirError(f"{self.describe()}: no JSON object at {path}; is this a Weir agent?")
        return answer


def _losses(answer: Mapping[str, Any], listed: int) -> dict[str, int]:
    found = {str(name): int(n) for name, n in (answer.get("losses") or {}).items()}
    if answer.get("truncated"):
        found["not listed"] = max(1, int(answer.get("total", 0)) - listed)
    return {name: n for name, n in found.items() if n > 0}


def _problem(error: urllib.error.HTTPError) -> str:
    """The agent's own words, where it has any."""
    try:
        said = json.loads(error.read(4096))["error"]
    except (OSError, ValueError, KeyError, TypeError):
        said = error.reason
    return f"{said} (HTTP {error.code})"
