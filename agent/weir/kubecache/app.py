# SPDX-License-Identifier: Apache-2.0
"""The part of the Kubernetes API that agents use, served from shelves: list, and watch."""

from __future__ import annotations

import asyncio
import gzip
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Metric, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

from weir.kubecache.shelf import PARTS, GoneError, Shelf, TooNewError, bookmark
from weir.kubecache.tokens import Tokens, UnavailableError

_BOOKMARKS = 30.0
_LONGEST_WATCH = 3600
#: Watches at once; 10 kB each. The file descriptors may be fewer.
_MOST_WATCHES = 100_000
#: The API server sends bookmarks once a minute: after some of them have failed to come, agents are not told
#: any more that what they know is fresh, and their own age of it rises.
_STALE = 150.0
#: Of the time that it takes to tell all watchers, so many times that is waited until the next news goes out.
_REST = 4
_MAX_PAUSE = 2.0


@dataclass
class Served:
    """One resource: its shelf, whether all of it is there yet, and seconds since the API server was heard."""

    name: str
    kind: str
    shelf: Shelf
    synced: Callable[[], bool]
    age: Callable[[], float]


class Cache:
    """Handlers of an aiohttp application. Everything but what shelves do runs in its event loop."""

    def __init__(
        self, served: Mapping[str, Served], tokens: Tokens | None = None, most: int = _MOST_WATCHES
    ) -> None:
        self._served = served
        self._most = min(most, _MOST_WATCHES)
        self._tokens = tokens
        self._loop: asyncio.AbstractEventLoop | None = None
        self._teller: asyncio.Task[None] | None = None
        self._dirty = asyncio.Event()
        self._news = asyncio.Event()
        self.watchers: Counter[str] = Counter()
        self.counts: Counter[tuple[str, str]] = Counter()

    def app(self) -> web.Application:
        """The application."""
        app = web.Application(middlewares=[self._guard])
        for path in self._served:
            app.router.add_get(path, self._collection)
        app.router.add_get("/healthz", self._healthy)
        app.router.add_get("/readyz", self._ready)
        app.router.add_get("/metrics", self._metrics)
        app.on_startup.append(self._started)
        return app

    async def _started(self, _: web.Application) -> None:
        self._loop = asyncio.get_running_loop()
        for served in self._served.values():
            served.shelf.changed = self._wake
        self._teller = asyncio.create_task(self._tell())

    def _wake(self) -> None:
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._dirty.set)

    async def _tell(self) -> None:
        """Wake all watchers when there is news or a bookmark is due, and then let them be for a while."""
        while True:
            try:
                await asyncio.wait_for(self._dirty.wait(), _BOOKMARKS)
            except asyncio.TimeoutError:
                pass
            self._dirty.clear()
            news, self._news = self._news, asyncio.Event()
            began = time.monotonic()
            news.set()
            await asyncio.sleep(0)  # every watcher that was woken has its turn before this one has again
            await asyncio.sleep(min(_REST * (time.monotonic() - began), _MAX_PAUSE))

    @web.middleware
    async def _guard(self, request: web.Request, handler: Any) -> web.StreamResponse:
        if self._tokens is not None and request.path in self._served:
            header = request.headers.get("Authorization", "")
            try:
                allowed = await asyncio.to_thread(self._tokens.allowed, header)
            except UnavailableError:
                return _status(503, "ServiceUnavailable", "the API server does not say whose token this is")
            if not allowed:
                self.counts[request.path, "unauthorized"] += 1
                return _status(401, "Unauthorized", "this token may not read here")
        answer: web.StreamResponse = await handler(request)
        return answer

    async def _healthy(self, _: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def _ready(self, _: web.Request) -> web.Response:
        missing = [path for path, served in self._served.items() if not served.synced()]
        text = "".join(f"no list yet: {path}\n" for path in missing) or "ok\n"
        return web.Response(status=503 if missing else 200, text=text)

    async def _metrics(self, _: web.Request) -> web.Response:
        registry = CollectorRegistry()
        registry.register(self)
        return web.Response(body=generate_latest(registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    def collect(self) -> Iterable[Metric]:
        """For prometheus-client."""
        objects = GaugeMetricFamily("weir_kube_cache_objects", "Objects held.", labels=["resource"])
        watchers = GaugeMetricFamily("weir_kube_cache_watchers", "Open watches.", labels=["resource"])
        same = CounterMetricFamily(
            "weir_kube_cache_events_held_back", "Events that changed nothing that an agent needs.",
            labels=["resource"],
        )  # fmt: skip
        requests = CounterMetricFamily(
            "weir_kube_cache_requests", "Lists and watches served, and what was refused.",
            labels=["resource", "outcome"],
        )  # fmt: skip
        ages = GaugeMetricFamily(
            "weir_kube_cache_age_seconds",
            "Since the API server was heard of a resource.",
            labels=["resource"],
        )
        for path, served in self._served.items():
            ages.add_metric([served.name], served.age())
            objects.add_metric([served.name], len(served.shelf))
            watchers.add_metric([served.name], self.watchers[path])
            same.add_metric([served.name], served.shelf.same)
        for (path, outcome), times in sorted(self.counts.items()):
            requests.add_metric([self._served[path].name, outcome], times)
        return objects, watchers, ages, same, requests

    async def _collection(self, request: web.Request) -> web.StreamResponse:
        served, query = self._served[request.path], request.query
        if not served.synced():
            return _status(503, "ServiceUnavailable", "this cache has no whole list yet")
        try:
            if query.get("watch") in ("1", "true"):
                return await self._watch(request, served)
            return self._of_node(request, served)
        except GoneError:
            self.counts[request.path, "expired"] += 1
            return _status(410, "Expired", "too old resource version; list again")
        except TooNewError:
            return _status(504, "Timeout", "too large resource version: this replica is behind")
        except ValueError as error:
            return _status(400, "BadRequest", str(error))

    def _of_node(self, request: web.Request, served: Served) -> web.Response:
        name, _, node = request.query.get("fieldSelector", "").partition("=")
        if name != "spec.nodeName":
            raise ValueError(
                "a list here is by fieldSelector=spec.nodeName=NAME, or a watch with sendInitialEvents"
            )
        version, found = served.shelf.on_node(node)
        self.counts[request.path, "lists_of_a_node"] += 1
        head = b'{"kind":"%s","metadata":{"resourceVersion":"%d"},"items":[' % (served.kind.encode(), version)
        return web.Response(body=head + b",".join(found) + b"]}", content_type="application/json")

    async def _watch(self, request: web.Request, served: Served) -> web.StreamResponse:
        shelf, path, query = served.shelf, request.path, request.query
        if "fieldSelector" in query:
            raise ValueError("no field selector for a watch here")
        whole = query.get("sendInitialEvents") == "true"
        end = time.monotonic() + min(int(query.get("timeoutSeconds", "300")), _LONGEST_WATCH)
        version = shelf.version if whole else int(query.get("resourceVersion", "0"))
        if self.watchers.total() >= self._most:
            self.counts[path, "too_many"] += 1
            return _status(429, "TooManyRequests", "too many watches", {"Retry-After": "10"})
        data, at = shelf.since(version)
        response = _Packed(request)
        self.watchers[path] += 1
        self.counts[path, "lists" if whole else "watches"] += 1
        try:
            await response.prepare(request)
            if whole:
                data, at = b"", await _all_of(shelf, version, response)
            await self._follow(served, response, data, at, end)
        except GoneError:
            self.counts[path, "too_slow"] += 1  # it goes on from its last version, or lists again
        except ConnectionError:
            pass
        finally:
            self.watchers[path] -= 1
        return response

    async def _follow(self, served: Served, response: _Packed, data: bytes, at: int, end: float) -> None:
        """Write ``data`` and then what comes, until the time ``end``; no bookmarks of what is old."""
        shelf, told = served.shelf, time.monotonic()
        while time.monotonic() < end:
            if not data and time.monotonic() - told >= _BOOKMARKS and served.age() < _STALE:
                data = bookmark(shelf.version)
            if data:
                await response.put(data)
                told = time.monotonic()
            news = self._news
            data, at = shelf.after(at)
            if not data:
                await news.wait()
                data, at = shelf.after(at)


class _Packed(web.StreamResponse):
    """Takes members of a gzip stream, and unpacks them for who cannot."""

    def __init__(self, request: web.Request) -> None:
        super().__init__(headers={"Content-Type": "application/json"})
        self._packed = "gzip" in request.headers.get("Accept-Encoding", "")
        if self._packed:
            self.headers["Content-Encoding"] = "gzip"

    async def put(self, member: bytes) -> None:
        """Write one, once there is room."""
        await self.write(member if self._packed else gzip.decompress(member))


async def _all_of(shelf: Shelf, version: int, response: _Packed) -> int:
    """Write every object, what happened since ``version``, and the mark of the end; number of the next event.

    What changed meanwhile comes a second time, as it is by then, which is no news to who has it.
    """
    for part in range(PARTS):
        if member := shelf.some(part):
            await response.put(member)
    now = shelf.version
    data, at = shelf.since(version)
    if data:
        await response.put(data)
    await response.put(bookmark(now, end=True))
    return at


def _status(code: int, reason: str, message: str, headers: Mapping[str, str] | None = None) -> web.Response:
    body = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": message, "reason": reason,
            "code": code}  # fmt: skip
    return web.Response(
        status=code, body=msgspec.json.encode(body), content_type="application/json", headers=headers
    )
