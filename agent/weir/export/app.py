# SPDX-License-Identifier: Apache-2.0
"""Pages: routes and replies."""

from __future__ import annotations

import json
import logging
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs

from weir.aggregate import Snapshot
from weir.export.prometheus import Exposition
from weir.health import Health

Rows = Sequence[Mapping[str, Any]]

_LIMIT = 10_000
_JSON = "application/json; charset=utf-8"
_PLAIN = "text/plain; charset=utf-8"
_GZIP_LEVEL = 1

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Request:
    """What a page is asked for; ``path`` decoded, ``query`` as it came, the others headers."""

    method: str
    path: str
    query: str = ""
    accept: str = ""
    accept_encoding: str = ""


class Reply:
    """Status, content type, body in pieces, and headers besides."""

    def __init__(self, status: int, kind: str, body: Iterable[bytes], **headers: str) -> None:
        self.status = status
        self.kind = kind
        self.body = body
        self.headers = headers

    def all_headers(self) -> Iterator[tuple[str, str]]:
        """Names and values."""
        yield "Content-Type", self.kind
        yield "X-Content-Type-Options", "nosniff"
        yield "Cache-Control", "no-store"
        yield "Vary", "Accept, Accept-Encoding"
        yield from self.headers.items()
        if isinstance(self.body, list):
            yield "Content-Length", str(sum(map(len, self.body)))

    def packed(self) -> Reply:
        """The same by gzip."""
        return Reply(self.status, self.kind, _gzip(self.body), **self.headers, **{"Content-Encoding": "gzip"})


def json_reply(status: int, value: Mapping[str, Any], **headers: str) -> Reply:
    """An object."""
    return Reply(status, _JSON, [json.dumps(value, separators=(",", ":")).encode()], **headers)


#: All there is, but for health.
PAGES = ("/", "/metrics", "/api/v1/edges", "/api/v1/requests", "/api/v1/connections", "/api/v1/graph")


Route = Callable[[Request], Reply]


class Page:
    """A page of HTML, with the Content-Security-Policy that is in it."""

    def __init__(self, text: str, policy: str) -> None:
        self._text, self._policy = text.encode(), policy

    def reply(self, _: Request) -> Reply:
        """The same to everybody."""
        return Reply(
            200, "text/html; charset=utf-8", [self._text], **{"Content-Security-Policy": self._policy}
        )


class Site:
    """GET and HEAD of some pages, and of health; nothing here changes anything."""

    def __init__(self, health: Health[Any], routes: Mapping[str, Route]) -> None:
        """``routes`` are paths, of those in PAGES."""
        self._health = health
        self._routes = dict(routes)

    def reply(self, request: Request, *, trusted: bool = True) -> Reply:
        """The page; health says to those who are not ``trusted`` only whether it is well."""
        reply = self._answer(request, trusted)
        return reply.packed() if _takes_gzip(request.accept_encoding) else reply

    def _answer(self, request: Request, trusted: bool) -> Reply:
        states = {"/healthz": self._health.unhealthy, "/readyz": self._health.unready}
        route, state = self._routes.get(request.path), states.get(request.path)
        if route is None and state is None:
            return json_reply(404, {"error": f"no such page: {request.path}"})
        if request.method not in ("GET", "HEAD"):
            return json_reply(405, {"error": f"{request.method} is not allowed here"}, Allow="GET, HEAD")
        if state:
            problem = state()
            return self._state(problem if trusted or not problem else "not well")
        assert route is not None
        return route(request)

    @staticmethod
    def _state(problem: str) -> Reply:
        return Reply(503 if problem else 200, _PLAIN, [f"{problem or 'ok'}\n".encode()])


class App(Site):
    """The agent's pages."""

    def __init__(
        self,
        health: Health[Snapshot],
        exposition: Exposition,
        edges: Callable[[], Rows],
        connections: Callable[[], Rows],
        requests: Callable[[], Rows] = list,
        graph: Callable[[], Mapping[str, Any]] = dict,
        page: tuple[str, str] = ("", ""),
    ) -> None:
        """``page`` is the one at ``/``, HTML and its Content-Security-Policy; ``graph`` what it asks for."""
        self._exposition = exposition
        pages: tuple[Route, ...] = (
            Page(*page).reply,
            self._metrics,
            lambda env: self._rows("edges", edges, env),
            lambda env: self._rows("requests", requests, env),
            lambda env: self._rows("connections", connections, env),
            lambda _: self._asked("graph", graph),
        )
        super().__init__(health, dict(zip(PAGES, pages, strict=True)))

    def _metrics(self, request: Request) -> Reply:
        created = parse_qs(request.query).get("created", ["0"])[-1] == "1"
        return Reply(200, *self._exposition.render(request.accept, created=created))

    def _rows(self, name: str, rows: Callable[[], Rows], request: Request) -> Reply:
        asked = parse_qs(request.query, keep_blank_values=True).get("limit", [str(_LIMIT)])[-1]
        if not (asked.isascii() and asked.isdigit() and len(asked) < 10):
            return json_reply(400, {"error": f"limit={asked}: a whole number is needed"})
        limit = int(asked)

        def listed() -> Mapping[str, Any]:
            found = rows()
            return {name: list(found[:limit]), "total": len(found), "truncated": len(found) > limit}

        return self._asked(name, listed)

    def _asked(self, name: str, made: Callable[[], Mapping[str, Any]]) -> Reply:
        """What a page of the API has, with what was lost and when the snapshot was taken."""
        snapshot = self._health.snapshot
        if snapshot is None:
            return json_reply(503, {"error": self._health.unready()})
        try:
            return json_reply(200, {"losses": snapshot.losses(), "time": snapshot.wall, **made()})
        except Exception:  # noqa: BLE001 one page's failure must not end the server's thread
            _log.exception("/api/v1/%s failed", name)
            self._health.fail("api")
            return json_reply(500, {"error": "internal error; the agent's log says more"})


def _takes_gzip(accept: str) -> bool:
    for part in accept.split(","):
        coding, _, weight = part.replace(" ", "").partition(";")
        if coding == "gzip":
            return weight not in ("q=0", "q=0.0", "q=0.00", "q=0.000")
    return False


def _gzip(pieces: Iterable[bytes]) -> Iterator[bytes]:
    packer = zlib.compressobj(_GZIP_LEVEL, zlib.DEFLATED, 16 + zlib.MAX_WBITS)
    for piece in pieces:
        if packed := packer.compress(piece):
            yield packed
    yield packer.flush()
